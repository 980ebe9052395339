// Sixteen floats in an AVX-512 register. Included by instruction_sets/avx512.cpp alone, which is compiled for AVX-512
// F and DQ.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "csrc/cpu/simd/operations.h"

namespace addertrain::cpu {
namespace {

struct Simd {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  // Tiles of positions x registers of filters, from measurements (docs/kernels.md).
  static constexpr int kForwardRows = 12, kForwardRows2 = 6, kForwardRows4 = 4;
  static constexpr int kGradRows = 12;
  static constexpr int kPowerRows = 6;
  static constexpr int kListRows = 10, kNearRows = 8, kBothRows = 8, kBothNearRows = 8;
  static constexpr bool kSlidesDepthwise = true;
  static constexpr int kMaxVectors = 4;
  static constexpr bool kHasCompress = true;
  static constexpr float kMostNear = 0.0f;  // add_between takes three instructions, as add_clipped does
  using SparseWidths1 = TileWidths<4, 7, 8, 14, 28>;
  using SparseWidths2 = TileWidths<4, 7, 8, 14>;
  using SparseWidths4 = TileWidths<4, 7>;
  using SlidingWidths1 = TileWidths<4, 7, 8, 10, 12, 14>;
  using SlidingWidths2 = TileWidths<4, 7, 8>;
  using SlidingWidths4 = TileWidths<4>;

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg broadcast(float value) { return _mm512_set1_ps(value); }
  // Loaded as an integer: on Zen 4 a broadcasting load of floats into 512 bits (vbroadcastss) also takes an arithmetic
  // pipe, and one of integers (vpbroadcastd) does not.
  static Reg broadcast_at(const float* from) {
    int32_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
  }
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  // The lanes whose bits are set, 0 in the others.
  static Reg load_lanes(const float* from, uint32_t lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), from);
  }
  // The first half of each.
  static Reg join_halves(Reg low, Reg high) { return _mm512_insertf32x8(low, _mm512_castps512_ps256(high), 1); }
  static Reg load_first(const float* from, int count) { return _mm512_maskz_loadu_ps(mask(count), from); }
  static void store(float* to, Reg value) { _mm512_storeu_ps(to, value); }
  static void store_first(float* to, Reg value, int count) { _mm512_mask_storeu_ps(to, mask(count), value); }
  static void stream(float* to, Reg value) { _mm512_stream_ps(to, value); }  // `to` must be aligned to a line
  static void finish_streams() { _mm_sfence(); }
  // Makes the compiler forget what it knows of a value.
  static void hide(Reg& value) { asm volatile("" : "+v"(value)); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  // b where either is NaN.
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static float sum(Reg value) { return _mm512_reduce_add_ps(value); }
  // Lane i of the result: the sum of v[i]. Three instructions a register instead of a dozen one by one.
  static Reg sums(const Reg (&v)[kLanes]) {
    Reg pairs[8], fours[4];
#pragma GCC unroll 16
    for (int i = 0; i < 8; ++i)
      pairs[i] = add(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
      fours[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    return add_quarters(add_quarters(fours[0], fours[1]), add_quarters(fours[2], fours[3]));
  }

  // sum + min(x, w). The addition is a multiplication by one on the FMA pipes, which stand idle while the adder pipes
  // take the minimum: twice as fast as an addition on Zen 4 and 5.
  static Reg add_min(Reg sum, Reg x, Reg w) {
    return _mm512_fmadd_ps(_mm512_min_ps(x, w), _mm512_set1_ps(1.0f), sum);
  }
  // sum + (offset - |x - w|): two of the additions are multiplications by one, which shares the work between the pipes.
  static Reg add_similarity(Reg sum, Reg offset, Reg x, Reg w) {
    const Reg one = _mm512_set1_ps(1.0f);
    const Reg distance = _mm512_abs_ps(_mm512_sub_ps(x, w));
    return _mm512_fmadd_ps(_mm512_fmsub_ps(offset, one, distance), one, sum);
  }
  static Reg multiply_add(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  // sum + g * HT(w - x). vrangeps takes the smaller magnitude of its operands with the first one's sign, which is HT.
  // Every other difference is a multiplication by one, which shares the work between the pipes.
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool is_odd) {
    const Reg one = _mm512_set1_ps(1.0f);
    const Reg difference = is_odd ? _mm512_fmsub_ps(w, one, x) : _mm512_sub_ps(w, x);
    constexpr int kSmallerMagnitudeSignOfFirst = 0b0010;
    return _mm512_fmadd_ps(_mm512_range_ps(difference, one, kSmallerMagnitudeSignOfFirst), g, sum);
  }
  static Reg add_between(Reg sum, Reg g, Reg w, Reg low, Reg high) {
    const __m512i above = _mm512_castps_si512(_mm512_max_ps(w, low));
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_min_epi32(above, _mm512_castps_si512(high))), g, sum);
  }
  static int count_non_zeros(const float* from, int count) {
    return __builtin_popcount(_mm512_cmp_ps_mask(load_first(from, count), zero(), _CMP_NEQ_UQ));
  }
  // Writes the non-zeros and their lanes, counted from `first` on, a full register of each; returns how many.
  // Compressed in a register: compressing into memory takes Zen 4 a hundred cycles.
  static int compress_non_zeros(Reg value, int32_t first, float* values, int32_t* lanes) {
    const __mmask16 is_non_zero = _mm512_cmp_ps_mask(value, zero(), _CMP_NEQ_UQ);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    store(values, _mm512_maskz_compress_ps(is_non_zero, value));
    _mm512_storeu_si512(lanes, _mm512_maskz_compress_epi32(is_non_zero, index));
    return __builtin_popcount(is_non_zero);
  }
  static uint32_t non_zeros(Reg value) { return _mm512_cmp_ps_mask(value, zero(), _CMP_NEQ_UQ); }
  static uint32_t non_zeros_up_to(float limit, Reg value) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(value, zero(), _CMP_GT_OQ), value, broadcast(limit), _CMP_LE_OQ);
  }
  static Reg compress(Reg value, uint32_t lanes) {
    return _mm512_maskz_compress_ps(static_cast<__mmask16>(lanes), value);
  }
  static void compress_entries(const int32_t* table, uint32_t lanes, int32_t* entries) {
    const __m512i all = _mm512_loadu_si512(table);
    _mm512_storeu_si512(entries, _mm512_maskz_compress_epi32(static_cast<__mmask16>(lanes), all));
  }
  // The inverse: `from` holds what belongs to `lanes`, in order; the others get 0.
  static Reg expand_entries(uint32_t lanes, const float* from) {
    return _mm512_maskz_expand_ps(static_cast<__mmask16>(lanes), load(from));
  }
  // Lane j of v[i] to lane i of v[j].
  static void transpose(Reg (&v)[kLanes]) {
    Reg pairs[16], fours[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      pairs[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m512d a = _mm512_castps_pd(pairs[i + j]), b = _mm512_castps_pd(pairs[i + 2 + j]);
        fours[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        fours[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
      }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {  // quarter q of fours[4 k + j]: lanes 4 q + j of registers 4 k to 4 k + 3
      const Reg a = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0b10001000);
      const Reg b = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0b11011101);
      const Reg c = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0b10001000);
      const Reg e = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0b11011101);
      v[j] = _mm512_shuffle_f32x4(a, c, 0b10001000);
      v[8 + j] = _mm512_shuffle_f32x4(a, c, 0b11011101);
      v[4 + j] = _mm512_shuffle_f32x4(b, e, 0b10001000);
      v[12 + j] = _mm512_shuffle_f32x4(b, e, 0b11011101);
    }
  }
  // scale * a + b
  static Reg scale_add(float scale, Reg a, Reg b) { return _mm512_fmadd_ps(_mm512_set1_ps(scale), a, b); }
  static Reg distance(Reg a, Reg b) { return _mm512_abs_ps(_mm512_sub_ps(a, b)); }
  static Reg mantissa(Reg value) {
    const __m512i bits = _mm512_castps_si512(value);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(0x007fffff), _mm512_set1_epi32(0x3f800000), kFirstAndSecondOrThird));
  }
  // Two lookups in a register each, by four bits of the exponent; a lookup ignores the bits above its own, and so the
  // sign.
  static Reg power_of_exponent(const PowerFit& fit, Reg value) {
    const __m512i bits = _mm512_castps_si512(value);
    const Reg low = _mm512_permutexvar_ps(_mm512_srli_epi32(bits, 23), load(fit.low_four));
    return _mm512_mul_ps(low, _mm512_permutexvar_ps(_mm512_srli_epi32(bits, 27), load(fit.high_four)));
  }
  static Reg signed_as(Reg magnitude, Reg value) {
    return _mm512_castsi512_ps(_mm512_maskz_ternarylogic_epi32(
        _mm512_cmp_ps_mask(value, zero(), _CMP_NEQ_UQ), _mm512_castps_si512(value),
        _mm512_set1_epi32(static_cast<int>(0x80000000u)), _mm512_castps_si512(magnitude), kFirstAndSecondOrThird));
  }
  // `value`, or NaN in the lanes where x is NaN.
  static Reg keep_nan(Reg value, Reg x) {
    return _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
  }

 private:
  static constexpr int kFirstAndSecondOrThird = 0b11101010;  // the truth table of (a & b) | c
  // Quarters 0 + 1 and 2 + 3 of a, then of b.
  static Reg add_quarters(Reg a, Reg b) {
    return add(_mm512_shuffle_f32x4(a, b, 0b10001000), _mm512_shuffle_f32x4(a, b, 0b11011101));
  }
  static __mmask16 mask(int count) { return static_cast<__mmask16>((1u << count) - 1); }
};

}  // namespace
}  // namespace addertrain::cpu
