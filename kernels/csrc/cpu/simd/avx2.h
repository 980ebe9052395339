// AVX2 and FMA, sixteen registers. Included by instruction_sets/avx2.cpp alone, which is compiled for them.
#pragma once

#include "csrc/cpu/simd/eight_floats.h"

namespace addertrain::cpu {
namespace {

struct Simd : EightFloats {
  static constexpr int kForwardRows = 6, kForwardRows2 = 4, kForwardRows4 = 2;
  static constexpr int kGradRows = 4;
  static constexpr int kListRows = 4;
  using SlidingWidths1 = TileWidths<4, 7, 8>;

  static Reg load_first(const float* from, int count) { return _mm256_maskload_ps(from, mask(count)); }
  static void store_first(float* to, Reg value, int count) { _mm256_maskstore_ps(to, mask(count), value); }
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool) {
    const Reg clipped =
        _mm256_max_ps(_mm256_min_ps(_mm256_sub_ps(w, x), _mm256_set1_ps(1.0f)), _mm256_set1_ps(-1.0f));
    return _mm256_fmadd_ps(clipped, g, sum);
  }

 private:
  static __m256i mask(int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
  }
};

}  // namespace
}  // namespace addertrain::cpu
