// Four floats in a NEON register, thirty-two registers: every aarch64 processor. Included by
// instruction_sets/neon.cpp alone.
//
// Comparisons with NaN come out as on the other instruction sets: `min` and `max` give b where either is NaN, and a
// clipped NaN is 1, which FMINNM does by itself.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "csrc/cpu/simd/lane_by_lane.h"

namespace addertrain::cpu {
namespace {

struct RegisterOfFour {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4;
};

struct Simd : LaneByLane<RegisterOfFour> {
  // As many sums as stay in registers next to the operands: read off the compiler's code, not timed (docs/kernels.md).
  static constexpr int kForwardRows = 12, kForwardRows2 = 8, kForwardRows4 = 4;
  static constexpr int kGradRows = 12;
  static constexpr int kPowerRows = 4;
  static constexpr int kListRows = 4, kBothRows = 4;  // a tile's sums are one register
  static constexpr int kMaxVectors = 2;
  using SlidingWidths1 = TileWidths<4, 7, 8, 10, 14>;
  using SlidingWidths2 = TileWidths<4, 7, 8>;
  using SlidingWidths4 = TileWidths<4>;  // not used: kMaxVectors

  static Reg zero() { return vdupq_n_f32(0.0f); }
  static Reg broadcast(float value) { return vdupq_n_f32(value); }
  static Reg broadcast_at(const float* from) { return vld1q_dup_f32(from); }
  static Reg load(const float* from) { return vld1q_f32(from); }
  static Reg load_first(const float* from, int count) {
    if (count == kLanes) return load(from);
    Reg value = zero();
    if (count & 2) value = vcombine_f32(vld1_f32(from), vdup_n_f32(0.0f));
    if (count == 1) value = vld1q_lane_f32(from, value, 0);
    if (count == 3) value = vld1q_lane_f32(from + 2, value, 2);
    return value;
  }
  static void store(float* to, Reg value) { vst1q_f32(to, value); }
  static void store_first(float* to, Reg value, int count) {
    if (count == kLanes) return store(to, value);
    if (count & 2) vst1_f32(to, vget_low_f32(value));
    if (count == 1) vst1q_lane_f32(to, value, 0);
    if (count == 3) vst1q_lane_f32(to + 2, value, 2);
  }
  // Lane j of v[i] to lane i of v[j].
  static void transpose(Reg (&v)[kLanes]) {
    const float64x2_t even_low = pairs(vtrn1q_f32(v[0], v[1])), odd_low = pairs(vtrn2q_f32(v[0], v[1]));
    const float64x2_t even_high = pairs(vtrn1q_f32(v[2], v[3])), odd_high = pairs(vtrn2q_f32(v[2], v[3]));
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(even_low, even_high));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd_low, odd_high));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(even_low, even_high));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd_low, odd_high));
  }
  // Makes the compiler forget what it knows of a value.
  static void hide(Reg& value) { asm volatile("" : "+w"(value)); }
  static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static Reg min(Reg a, Reg b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  // b where either is NaN.
  static Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static float sum(Reg value) { return vaddvq_f32(value); }
  // Lane i of the result: the sum of v[i].
  static Reg sums(const Reg (&v)[kLanes]) { return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])); }

  // sum + min(x, w). A multiplication by one, because GCC moves plain additions behind all minima of a tile and then
  // runs out of registers. FMIN gives NaN where either is: so does the response, by its sums of x and of w.
  static Reg add_min(Reg sum, Reg x, Reg w) { return vfmaq_f32(sum, vminq_f32(x, w), broadcast(1.0f)); }
  static Reg add_similarity(Reg sum, Reg offset, Reg x, Reg w) {
    return vaddq_f32(sum, vsubq_f32(offset, vabdq_f32(x, w)));
  }
  static Reg multiply_add(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool) {
    const Reg clipped = vmaxnmq_f32(vminnmq_f32(vsubq_f32(w, x), broadcast(1.0f)), broadcast(-1.0f));
    return vfmaq_f32(sum, clipped, g);
  }
  static Reg scale_add(float scale, Reg a, Reg b) { return vfmaq_f32(b, broadcast(scale), a); }
  static Reg distance(Reg a, Reg b) { return vabdq_f32(a, b); }
  static Reg mantissa(Reg value) { return vbslq_f32(vdupq_n_u32(0x007fffff), value, broadcast(1.0f)); }
  static Reg signed_as(Reg magnitude, Reg value) {
    const Reg with_sign = vbslq_f32(vdupq_n_u32(0x80000000), value, magnitude);
    return vbslq_f32(vceqzq_f32(value), zero(), with_sign);
  }
  static Reg keep_nan(Reg value, Reg x) { return vbslq_f32(vceqq_f32(x, x), value, x); }

 private:
  static float64x2_t pairs(Reg value) { return vreinterpretq_f64_f32(value); }
};

}  // namespace
}  // namespace addertrain::cpu
