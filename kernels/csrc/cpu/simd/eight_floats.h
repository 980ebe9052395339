// Eight floats in a 256-bit register: what AVX2 and the narrow half of AVX-512 have in common.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/cpu/movement/units.h"
#include "csrc/cpu/simd/lane_by_lane.h"

namespace addertrain::cpu {
namespace {

struct EightFloats {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kMaxVectors = 2;
  using SlidingWidths2 = TileWidths<4>;
  using SlidingWidths4 = TileWidths<4>;  // not used: kMaxVectors

  // Eight floats are too few for lists of non-zeros to pay (forward/sparse.h).
  static constexpr bool kHasCompress = false;
  using SparseWidths1 = TileWidths<>;
  using SparseWidths2 = TileWidths<>;
  using SparseWidths4 = TileWidths<>;
  static int count_non_zeros(const float*, int count) { return count; }
  static Reg load_lanes(const float*, uint32_t) { return zero(); }
  static Reg join_halves(Reg low, Reg) { return low; }

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg broadcast(float value) { return _mm256_set1_ps(value); }
  static Reg broadcast_at(const float* from) { return _mm256_broadcast_ss(from); }
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
  static int compress_non_zeros(Reg value, int32_t first, float* values, int32_t* lanes) {
    return compress_lanes<kLanes>(value, first, values, lanes);
  }
  static uint32_t compress_entries(Reg value, const int32_t* table, float* values, int32_t* entries) {
    return compress_table<kLanes>(value, table, values, entries);
  }
  static Reg expand_entries(uint32_t lanes, const float* from) { return expand_lanes<kLanes, Reg>(lanes, from); }
  static void transpose(Reg (&v)[kLanes]) { transpose_lanes(v); }
  // Makes the compiler forget what it knows of a value.
  static void hide(Reg& value) { asm volatile("" : "+v"(value)); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  // b where either is NaN.
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static float sum(Reg value) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  // Lane i of the result: the sum of v[i].
  static Reg sums(const Reg (&v)[kLanes]) {
    const Reg low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    const Reg high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  }
  static Reg add_min(Reg sum, Reg x, Reg w) {
    return _mm256_fmadd_ps(_mm256_min_ps(x, w), _mm256_set1_ps(1.0f), sum);
  }
  static Reg scale_add(float scale, Reg a, Reg b) { return _mm256_fmadd_ps(_mm256_set1_ps(scale), a, b); }
  static Reg keep_nan(Reg value, Reg x) { return _mm256_blendv_ps(value, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }
};

}  // namespace
}  // namespace addertrain::cpu
