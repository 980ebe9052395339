// One word of a pass: a float32 element, or four bytes, as the word kernel adds them up: the whole arithmetic of
// its inner loop.
#pragma once

#include "device/platform.h"

namespace addertrain {

// Eq. 2: acc - |x - w|. Two instructions: FADD, FADD with a free absolute value.
struct ForwardF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = false;
  static ADDERTRAIN_DEVICE float step(float acc, float x, float w, float) { return acc - fabsf(x - w); }
};

// Eq. 6 and 7 by HT(w - x) = 2 sat((w + 1)/2 - x/2) - 1, so sum g*HT = 2 sum g*sat(w' - x') - sum g.
// Two instructions: FADD.SAT, FFMA. `w_scaled` is (w + 1)/2, packed so; `x_scaled` is x/2.
struct GradInputF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = true;
  static ADDERTRAIN_DEVICE float step(float acc, float g, float w_scaled, float x_scaled) {
    return fmaf(g, saturate(w_scaled - x_scaled), acc);
  }
};

// sum + |x - w| over four neighbouring channels in bytes, exact: one instruction.
struct DistanceU8 {
  using Word = uint32_t;
  using Sum = int32_t;
  using Out = int32_t;
  static constexpr bool kIsGrad = false;
  static ADDERTRAIN_DEVICE int32_t step(int32_t sum, uint32_t x, uint32_t w, float) {
    return add_byte_differences(sum, x, w);
  }
};

}  // namespace addertrain
