// Eight floats in half an AVX-512 register, with AVX-512's thirty-two registers, masks and vrangeps: for layers with at
// most eight filters (or channels), which would leave a whole register half empty.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/cpu/units.h"

namespace addertrain::cpu {
namespace {

struct Simd {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kForwardRows = 12, kForwardRows2 = 6, kForwardRows4 = 4;
  static constexpr int kGradRows = 12;
  static constexpr int kMaxVectors = 2;
  static constexpr bool kHasCompress = false;
  using SparseWidths1 = TileWidths<>;
  using SparseWidths2 = TileWidths<>;
  using SparseWidths4 = TileWidths<>;
  static int compress_non_zeros(const float*, int, int32_t, float*, int32_t*) { return 0; }  // never called
  using SlidingWidths1 = TileWidths<4, 7, 8, 10, 14, 28>;
  using SlidingWidths2 = TileWidths<4>;
  using SlidingWidths4 = TileWidths<4>;  // not used: kMaxVectors

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg broadcast(float value) { return _mm256_set1_ps(value); }
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static Reg load_first(const float* from, int count) { return _mm256_maskz_loadu_ps(mask(count), from); }
  static void store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
  static void store_first(float* to, Reg value, int count) { _mm256_mask_storeu_ps(to, mask(count), value); }
  // Makes the compiler forget what it knows of a value.
  static void hide(Reg& value) { asm volatile("" : "+v"(value)); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
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
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool is_odd) {
    const Reg one = _mm256_set1_ps(1.0f);
    const Reg difference = is_odd ? _mm256_fmsub_ps(w, one, x) : _mm256_sub_ps(w, x);
    constexpr int kSmallerMagnitudeSignOfFirst = 0b0010;
    return _mm256_fmadd_ps(_mm256_range_ps(difference, one, kSmallerMagnitudeSignOfFirst), g, sum);
  }
  static Reg scale_add(float scale, Reg a, Reg b) { return _mm256_fmadd_ps(_mm256_set1_ps(scale), a, b); }
  static Reg keep_nan(Reg value, Reg x) { return _mm256_blendv_ps(value, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }

 private:
  static __mmask8 mask(int count) { return static_cast<__mmask8>((1u << count) - 1); }
};

}  // namespace
}  // namespace addertrain::cpu
