// AVX2 and FMA, sixteen registers. Included by instruction_sets/avx2.cpp alone, which is compiled for them.
#pragma once

#include <array>

#include "csrc/cpu/simd/eight_floats.h"

namespace addertrain::cpu {
namespace {

// For each set of lanes, given as bits, eight bytes that tell a permutation where its lanes come from.
using LaneTable = std::array<uint64_t, 256>;

// The lanes of a set, in order; what is behind them is lane 0.
constexpr LaneTable lanes_of_sets() {
  LaneTable table{};
  for (uint32_t set = 0; set < 256; ++set)
    for (int lane = 0, count = 0; lane < 8; ++lane)
      if (set >> lane & 1) table[set] |= static_cast<uint64_t>(lane) << 8 * count++;
  return table;
}

// The inverse: how many of the set come before each of its lanes; 0x80 for the others.
constexpr LaneTable ranks_of_sets() {
  LaneTable table{};
  for (uint32_t set = 0; set < 256; ++set)
    for (int lane = 0, count = 0; lane < 8; ++lane)
      table[set] |= static_cast<uint64_t>(set >> lane & 1 ? count++ : 0x80) << 8 * lane;
  return table;
}

constexpr LaneTable kLanesOfSets = lanes_of_sets(), kRanksOfSets = ranks_of_sets();

struct Simd : EightFloats {
  static constexpr int kForwardRows = 6, kForwardRows2 = 4, kForwardRows4 = 2;
  static constexpr int kGradRows = 4;
  static constexpr int kPowerRows = 4;
  static constexpr int kListRows = 6, kNearRows = 5, kBothRows = 5;
  static constexpr bool kHasCompress = true;
  static constexpr float kMostNear = 3.0f;  // from the tolerance of the input gradient (docs/kernels.md)
  using SlidingWidths1 = TileWidths<4, 7, 8>;
  using SparseWidths1 = TileWidths<4, 7, 8>;
  using SparseWidths2 = TileWidths<4>;

  static Reg load_first(const float* from, int count) { return _mm256_maskload_ps(from, mask(count)); }
  static Reg load_lanes(const float* from, uint32_t lanes) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bits);
    return _mm256_maskload_ps(from, _mm256_cmpeq_epi32(set, bits));
  }
  static Reg join_halves(Reg low, Reg high) { return _mm256_insertf128_ps(low, _mm256_castps256_ps128(high), 1); }
  static void store_first(float* to, Reg value, int count) { _mm256_maskstore_ps(to, mask(count), value); }
  // sum + g HT(w - x) in four instructions, which all four pipes share: every other difference is a multiplication by
  // one (simd/avx512.h), and the lower bound is an integer minimum. Read as unsigned integers, floats below -1 are
  // larger than -1 itself, and all others are smaller. The order of the two bounds makes a NaN 1, as on every set.
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool is_odd) {
    const Reg one = _mm256_set1_ps(1.0f);
    const Reg difference = is_odd ? _mm256_fmsub_ps(w, one, x) : _mm256_sub_ps(w, x);
    const __m256i below = _mm256_castps_si256(_mm256_min_ps(difference, one));
    const __m256i clipped = _mm256_min_epu32(below, _mm256_castps_si256(_mm256_set1_ps(-1.0f)));
    return _mm256_fmadd_ps(_mm256_castsi256_ps(clipped), g, sum);
  }
  // As integers, negative floats are below all positive ones, which lie in their own order.
  static Reg add_between(Reg sum, Reg g, Reg w, Reg low, Reg high) {
    const __m256i above = _mm256_castps_si256(_mm256_max_ps(w, low));
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_min_epi32(above, _mm256_castps_si256(high))), g, sum);
  }
  static int count_non_zeros(const float* from, int count) {
    return __builtin_popcount(non_zeros(load_first(from, count)));
  }
  // See simd/avx512.h.
  static int compress_non_zeros(Reg value, int32_t first, float* values, int32_t* lanes) {
    const uint32_t set = non_zeros(value);
    const __m256i from = permutation(kLanesOfSets[set]);
    store(values, _mm256_permutevar8x32_ps(value, from));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi32(from, _mm256_set1_epi32(first)));
    return __builtin_popcount(set);
  }
  static uint32_t non_zeros(Reg value) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(value, zero(), _CMP_NEQ_UQ)));
  }
  static uint32_t non_zeros_up_to(float limit, Reg value) {
    const Reg above = _mm256_cmp_ps(value, zero(), _CMP_GT_OQ);
    const Reg below = _mm256_cmp_ps(value, broadcast(limit), _CMP_LE_OQ);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_and_ps(above, below)));
  }
  static Reg compress(Reg value, uint32_t lanes) {
    return _mm256_permutevar8x32_ps(value, permutation(kLanesOfSets[lanes]));
  }
  static void compress_entries(const int32_t* table, uint32_t lanes, int32_t* entries) {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table));
    const __m256i from = permutation(kLanesOfSets[lanes]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries), _mm256_permutevar8x32_epi32(all, from));
  }
  static Reg expand_entries(uint32_t lanes, const float* from) {
    const __m256i ranks = permutation(kRanksOfSets[lanes]);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(load(from), ranks), zero(), _mm256_castsi256_ps(ranks));
  }

 private:
  static __m256i mask(int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
  }
  // Lanes from signed bytes.
  static __m256i permutation(uint64_t bytes) {
    return _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  }
};

}  // namespace
}  // namespace addertrain::cpu
