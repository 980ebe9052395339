// Four floats in the compiler's own vector type: any processor.
#pragma once

#include <cstdint>
#include <cstring>

#include "csrc/cpu/simd/lane_by_lane.h"

namespace addertrain::cpu {
namespace {

struct VectorOfFour {
  typedef float Reg __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
};

struct Simd : LaneByLane<VectorOfFour> {
  static constexpr int kForwardRows = 4, kForwardRows2 = 4, kForwardRows4 = 2;
  static constexpr int kGradRows = 4;
  static constexpr int kPowerRows = 4;
  static constexpr int kListRows = 4, kBothRows = 4;
  static constexpr int kMaxVectors = 2;
  using SlidingWidths1 = TileWidths<4, 7>;
  using SlidingWidths2 = TileWidths<4>;
  using SlidingWidths4 = TileWidths<4>;  // not used: kMaxVectors

  static Reg zero() { return Reg{}; }
  static Reg broadcast(float value) { return Reg{value, value, value, value}; }
  static Reg broadcast_at(const float* from) { return broadcast(*from); }
  static Reg load(const float* from) { return load_first(from, kLanes); }
  static Reg load_first(const float* from, int count) {
    Reg value{};
    std::memcpy(&value, from, sizeof(float) * count);
    return value;
  }
  static void store(float* to, Reg value) { store_first(to, value, kLanes); }
  static void store_first(float* to, Reg value, int count) { std::memcpy(to, &value, sizeof(float) * count); }
  // Makes the compiler forget what it knows of a value.
  static void hide(Reg& value) { asm volatile("" : "+m"(value)); }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg min(Reg a, Reg b) { return a < b ? a : b; }
  // b where either is NaN.
  static Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static Reg sums(const Reg (&v)[kLanes]) { return Reg{sum(v[0]), sum(v[1]), sum(v[2]), sum(v[3])}; }
  static float sum(Reg value) { return (value[0] + value[2]) + (value[1] + value[3]); }

  static Reg add_min(Reg sum, Reg x, Reg w) { return sum + min(x, w); }
  static Reg add_similarity(Reg sum, Reg offset, Reg x, Reg w) {
    const Reg difference = x - w;
    return sum + (offset - (difference < Reg{} ? -difference : difference));
  }
  static Reg multiply_add(Reg a, Reg b, Reg c) { return a * b + c; }
  static Reg add_clipped(Reg sum, Reg g, Reg w, Reg x, bool) {
    const Reg one = broadcast(1.0f);
    Reg clipped = w - x;
    clipped = clipped < one ? clipped : one;
    clipped = clipped > -one ? clipped : -one;
    return sum + clipped * g;
  }
  static Reg scale_add(float scale, Reg a, Reg b) { return broadcast(scale) * a + b; }
  static Reg distance(Reg a, Reg b) {
    const Reg difference = a - b;
    return difference < Reg{} ? -difference : difference;
  }
  static Reg mantissa(Reg value) {
    typedef int32_t Bits __attribute__((vector_size(16)));
    return (Reg)(((Bits)value & 0x007fffff) | 0x3f800000);
  }
  static Reg signed_as(Reg magnitude, Reg value) {
    const Reg with_sign = value < Reg{} ? -magnitude : magnitude;
    return value == Reg{} ? Reg{} : with_sign;
  }
  static Reg keep_nan(Reg value, Reg x) { return x == x ? value : x; }
};

}  // namespace
}  // namespace addertrain::cpu
