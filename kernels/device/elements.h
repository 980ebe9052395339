// A word of a position against those of two neighbouring columns, a float32 element or four bytes, as the word kernel
// adds them up: all the arithmetic of its inner loop.
#pragma once

#include "device/platform.h"

namespace addertrain {

// Eq. 2: acc - |x - w|. Two instructions an element, FADD and FADD with a free absolute value; one where float32 is
// packed, FADD2 and FADD2 with the absolute values of both halves.
struct ForwardF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = false;
  static constexpr bool kIsSaturated = false;
  static constexpr bool kIsBytes = false;
  static constexpr bool kIsUnrolled = true;
  ADDERTRAIN_DEVICE explicit ForwardF32(float) {}
  static ADDERTRAIN_DEVICE Two<float> step(Two<float> acc, float x, Two<float> w, Two<float>) {
    const Two<float> d = subtract(Two<float>{x, x}, w);
    return subtract(acc, Two<float>{fabsf(d.first), fabsf(d.second)});
  }
};

// Eq. 6 and 7 by HT(w - x) = 2 sat((w + 1)/2 - x/2) - 1, so sum g*HT = 2 sum g*sat(w' - x') - sum g.
// Two instructions an element, FADD.SAT and FFMA; one and a half where float32 is packed, because no packed addition
// saturates. `w_scaled` is (w + 1)/2, packed so; `x_scaled` is x/2.
struct GradInputF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = true;
  static constexpr bool kIsSaturated = true;
  static constexpr bool kIsBytes = false;
  static constexpr bool kIsUnrolled = true;
  ADDERTRAIN_DEVICE explicit GradInputF32(float) {}
  static ADDERTRAIN_DEVICE Two<float> step(Two<float> acc, float g, Two<float> w_scaled, Two<float> x_scaled) {
    return add_saturated_products(acc, g, w_scaled, x_scaled);
  }
};

// acc - |x - w|^p, 1 < p < 2: FADD, MUFU.LG2, FMUL, MUFU.EX2, FADD. The two of the special function unit, which takes
// four lanes a cycle of a quarter of a multiprocessor, are sixteen slots' time and bound the loop.
struct PowerForwardF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = false;
  static constexpr bool kIsSaturated = false;
  static constexpr bool kIsBytes = false;
  static constexpr bool kIsUnrolled = false;
  float p;
  ADDERTRAIN_DEVICE explicit PowerForwardF32(float power) : p(power) {}
  ADDERTRAIN_DEVICE Two<float> step(Two<float> acc, float x, Two<float> w, Two<float>) const {
    return {acc.first - power_of(fabsf(x - w.first), p), acc.second - power_of(fabsf(x - w.second), p)};
  }
};

// acc + g p |w - x|^(p-1) sgn(w - x), the factor p once at the end: FADD, MUFU.LG2, FMUL, MUFU.EX2, LOP3, FFMA.
struct PowerGradInputF32 {
  using Word = float;
  using Sum = float;
  using Out = float;
  static constexpr bool kIsGrad = true;
  static constexpr bool kIsSaturated = false;
  static constexpr bool kIsBytes = false;
  static constexpr bool kIsUnrolled = false;
  float q;
  ADDERTRAIN_DEVICE explicit PowerGradInputF32(float power) : q(power - 1.0f) {}
  ADDERTRAIN_DEVICE Two<float> step(Two<float> acc, float g, Two<float> w, Two<float> x) const {
    return {fmaf(g, slope(w.first - x.first), acc.first), fmaf(g, slope(w.second - x.second), acc.second)};
  }

 private:
  ADDERTRAIN_DEVICE float slope(float d) const { return copysignf(power_of(fabsf(d), q), d); }
};

// sum + |x - w| over four neighbouring channels in bytes, exact: one instruction, or two for 2 max(x, w), from which
// the kernel takes the sums of x and of w at the end.
struct DistanceU8 {
  using Word = uint32_t;
  using Sum = int32_t;
  using Out = int32_t;
  static constexpr bool kIsGrad = false;
  static constexpr bool kIsSaturated = false;
  static constexpr bool kIsBytes = true;
  static constexpr bool kIsUnrolled = true;
  ADDERTRAIN_DEVICE explicit DistanceU8(float) {}
  static ADDERTRAIN_DEVICE Two<int32_t> step(Two<int32_t> sum, uint32_t x, Two<uint32_t> w, Two<float>) {
    if (has_byte_maxima())
      return {add_twice_byte_maxima(sum.first, x, w.first), add_twice_byte_maxima(sum.second, x, w.second)};
    return {add_byte_differences(sum.first, x, w.first), add_byte_differences(sum.second, x, w.second)};
  }
};

}  // namespace addertrain
