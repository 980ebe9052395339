// One element of the layer with the p-th power of the distance, 1 < p < 2, for one instruction set (a `Simd` is in
// scope):
//
//   |d|^p = |d| |d|^q      the slope  p |d|^q sgn(d)      q = p - 1
//
// |d|^q is a product of two tables' entries and of a polynomial (power_fit.h): some seventeen instructions, ten of them
// on the pipes for multiplications. With u = 2^-24 the relative error of all three is at most 10 u for every |d| from
// 2^-126 on: 0.61 u of the polynomial's fit, 2.5 u of its coefficients and of Horner's rule, up to 3 u of the entries and
// as much of their product with the polynomial, and one rounding for the factor |d| or p. The largest that a search over
// all exponents has found is 6.1 u.
//
// 0 gives exactly 0. A difference below 2^-126 counts as one between 2^-127 and 2^-126. The distance keeps an infinite or
// NaN difference by its factor |d|. The slope takes such a difference for 2^128; the checked slope gives NaN.
#pragma once

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/pack.h"

namespace addertrain::cpu {
namespace {

// |d|^q.
inline Simd::Reg power_of(const PowerFit& fit, Simd::Reg d) {
  const Simd::Reg u = Simd::add(Simd::mantissa(d), Simd::broadcast(-1.5f));
  Simd::Reg sum = Simd::broadcast_at(fit.coefficients + PowerFit::kDegree);
#pragma GCC unroll 8
  for (int i = PowerFit::kDegree - 1; i >= 0; --i)
    sum = Simd::multiply_add(sum, u, Simd::broadcast_at(fit.coefficients + i));
  return Simd::multiply_add(sum, Simd::power_of_exponent(fit, d), Simd::zero());
}

// |x - w|^p.
inline Simd::Reg power_of_distance(const PowerFit& fit, Simd::Reg x, Simd::Reg w) {
  const Simd::Reg distance = Simd::distance(x, w);
  return Simd::multiply_add(distance, power_of(fit, distance), Simd::zero());
}

// The slope at a - b over p: |a - b|^q sgn(a - b).
template <bool kChecked>
inline Simd::Reg slope_of(const PowerFit& fit, Simd::Reg a, Simd::Reg b) {
  const Simd::Reg d = Simd::scale_add(-1.0f, b, a);
  const Simd::Reg slope = Simd::signed_as(power_of(fit, d), d);
  return kChecked ? Simd::multiply_add(d, Simd::zero(), slope) : slope;
}

// Whether none of `count` values is a NaN or infinite.
inline bool are_finite(const float* values, int64_t count) {
  Simd::Reg zeros = Simd::zero();
  for (int64_t i = 0; i < count; i += Simd::kLanes)
    zeros = Simd::multiply_add(Simd::load_first(values + i, lanes_left(count, i)), Simd::zero(), zeros);
  return Simd::sum(zeros) == 0.0f;
}

// Calls use(k, register) with tap k of a register of filters from o0 on, k in the order (r, s, c).
template <typename Use>
inline void for_filter_taps(const Layer& d, const float* w, FilterOrder order, int64_t o0, const Use& use) {
  const int64_t K = d.C * d.R * d.S;
  FilterTap tap{0, 0, 0};
  for_transposed(w + o0 * K, K, lanes_left(d.O, o0), K, [&](int64_t, Simd::Reg value) {
    use((tap.r * d.S + tap.s) * d.C + tap.c, value);
    tap.advance(d, order);
  });
}

// The offset of each tap from a position's first one, in the order (r, s, c).
inline const int64_t* list_tap_offsets(const Layer& d, int64_t row_pitch, OffsetTable& table) {
  int64_t* taps = table.entries(d.C * d.R * d.S);
  int64_t k = 0;
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t c = 0; c < d.C; ++c) taps[k++] = r * d.dilation_h * row_pitch + s * d.dilation_w * d.C + c;
  return taps;
}

}  // namespace
}  // namespace addertrain::cpu
