// Half an AVX-512 register, with AVX-512's thirty-two registers, masks and vrangeps: for layers with at most eight
// filters (or channels), which would leave a whole register half empty. Included by instruction_sets/avx512_narrow.cpp
// alone.
#pragma once

#include "csrc/cpu/simd/eight_floats.h"

namespace addertrain::cpu {
namespace {

struct Simd : EightFloats {
  static constexpr int kForwardRows = 12, kForwardRows2 = 6, kForwardRows4 = 4;
  static constexpr int kGradRows = 12;
  static constexpr int kPowerRows = 6;
  static constexpr int kListRows = 8, kBothRows = 8;
  using SlidingWidths1 = TileWidths<4, 7, 8, 10, 14, 28>;

  static Reg load_first(const float* from, int count) { return _mm256_maskz_loadu_ps(mask(count), from); }
  static void store_first(float* to, Reg value, int count) { _mm256_mask_storeu_ps(to, mask(count), value); }
  // See simd/avx512.h.
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool is_odd) {
    const Reg one = _mm256_set1_ps(1.0f);
    const Reg difference = is_odd ? _mm256_fmsub_ps(w, one, x) : _mm256_sub_ps(w, x);
    constexpr int kSmallerMagnitudeSignOfFirst = 0b0010;
    return _mm256_fmadd_ps(_mm256_range_ps(difference, one, kSmallerMagnitudeSignOfFirst), g, sum);
  }

 private:
  static __mmask8 mask(int count) { return static_cast<__mmask8>((1u << count) - 1); }
};

}  // namespace
}  // namespace addertrain::cpu
