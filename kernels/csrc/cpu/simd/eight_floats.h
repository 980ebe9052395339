// Eight floats in a 256-bit register: what AVX2 and the narrow half of AVX-512 have in common.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/cpu/simd/lane_by_lane.h"

namespace addertrain::cpu {
namespace {

struct RegisterOfEight {
  using Reg = __m256;
  static constexpr int kLanes = 8;
};

struct EightFloats : LaneByLane<RegisterOfEight> {
  static constexpr int kMaxVectors = 2;
  using SlidingWidths2 = TileWidths<4>;
  using SlidingWidths4 = TileWidths<4>;  // not used: kMaxVectors

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg broadcast(float value) { return _mm256_set1_ps(value); }
  static Reg broadcast_at(const float* from) { return _mm256_broadcast_ss(from); }
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
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
  // Lane i of the result: the sum of v[i]. Shuffles and additions instead of vhaddps, which is slower than its parts.
  static Reg sums(const Reg (&v)[kLanes]) {
    const Reg low = add_pairs(add_pairs(v[0], v[1]), add_pairs(v[2], v[3]));
    const Reg high = add_pairs(add_pairs(v[4], v[5]), add_pairs(v[6], v[7]));
    return add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  }
  // Lane j of v[i] to lane i of v[j].
  static void transpose(Reg (&v)[kLanes]) {
    Reg pairs[8], fours[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0b01000100);
        fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0b11101110);
      }
#pragma GCC unroll 8
    for (int j = 0; j < 4; ++j) {  // half h of fours[4 k + j]: lane 4 h + j of registers 4 k to 4 k + 3
      v[j] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x20);
      v[4 + j] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x31);
    }
  }
  static Reg add_min(Reg sum, Reg x, Reg w) {
    return _mm256_fmadd_ps(_mm256_min_ps(x, w), _mm256_set1_ps(1.0f), sum);
  }
  static Reg add_similarity(Reg sum, Reg offset, Reg x, Reg w) {
    const Reg one = _mm256_set1_ps(1.0f);
    const Reg distance = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_sub_ps(x, w));
    return _mm256_fmadd_ps(_mm256_fmsub_ps(offset, one, distance), one, sum);
  }
  static Reg multiply_add(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg scale_add(float scale, Reg a, Reg b) { return _mm256_fmadd_ps(_mm256_set1_ps(scale), a, b); }
  static Reg distance(Reg a, Reg b) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_sub_ps(a, b)); }
  static Reg mantissa(Reg value) {
    const Reg fraction = _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff));
    return _mm256_or_ps(_mm256_and_ps(value, fraction), _mm256_set1_ps(1.0f));
  }
  // Three lookups in a register each, by three, three and two bits of the exponent.
  static Reg power_of_exponent(const PowerFit& fit, Reg value) {
    const __m256i bits = _mm256_castps_si256(value);
    const Reg low = _mm256_permutevar8x32_ps(load(fit.low_three), _mm256_srli_epi32(bits, 23));
    const Reg middle = _mm256_permutevar8x32_ps(load(fit.middle_three), _mm256_srli_epi32(bits, 26));
    const Reg high = _mm256_permutevar8x32_ps(load(fit.high_two), _mm256_srli_epi32(bits, 29));
    return _mm256_mul_ps(_mm256_mul_ps(low, middle), high);
  }
  static Reg signed_as(Reg magnitude, Reg value) {
    const Reg with_sign = _mm256_or_ps(magnitude, _mm256_and_ps(value, _mm256_set1_ps(-0.0f)));
    return _mm256_and_ps(with_sign, _mm256_cmp_ps(value, zero(), _CMP_NEQ_UQ));
  }
  static Reg keep_nan(Reg value, Reg x) { return _mm256_blendv_ps(value, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }

 private:
  // In each half: sums of neighbours of a, then of b.
  static Reg add_pairs(Reg a, Reg b) {
    return add(_mm256_shuffle_ps(a, b, 0b10001000), _mm256_shuffle_ps(a, b, 0b11011101));
  }
};

}  // namespace
}  // namespace addertrain::cpu
