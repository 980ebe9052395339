// What instruction sets without compression have in common: lists of non-zeros, lane by lane.
#pragma once

#include <cstdint>
#include <cstring>

#include "csrc/cpu/simd/operations.h"

namespace addertrain::cpu {
namespace {

// Base of a `Simd`. Register names the compiler's vector type, Reg, and how many floats it holds, kLanes.
template <typename Register>
struct LaneByLane : Register {
  using typename Register::Reg;
  using Register::kLanes;

  // Too few floats, or compressed too slowly, for the forward pass's lists of non-zeros to pay (forward/sparse.h).
  static constexpr bool kHasCompress = false;
  using SparseWidths1 = TileWidths<>;
  using SparseWidths2 = TileWidths<>;
  using SparseWidths4 = TileWidths<>;
  // Too few registers for the sums and pixels of a tile, or not timed (grouped/sliding.h).
  static constexpr bool kSlidesDepthwise = false;
  static void stream(float*, Reg) {}
  static void finish_streams() {}
  // As many instructions as add_clipped, or not timed: no list of near inputs (grad_input/channel_lists.h).
  static constexpr float kMostNear = 0.0f;
  static constexpr int kNearRows = 4, kBothNearRows = 4;
  static Reg add_between(Reg sum, Reg, Reg, Reg, Reg) { return sum; }

  static int count_non_zeros(const float*, int count) { return count; }
  static Reg load_lanes(const float*, uint32_t) { return Reg{}; }
  static Reg join_halves(Reg low, Reg) { return low; }

  static int compress_non_zeros(Reg value, int32_t first, float* values, int32_t* lanes) {
    int count = 0;
    for (int i = 0; i < kLanes; ++i) {
      values[count] = value[i];
      lanes[count] = first + i;
      count += value[i] != 0;
    }
    return count;
  }
  static uint32_t non_zeros(Reg value) {
    uint32_t lanes = 0;
    for (int i = 0; i < kLanes; ++i) lanes |= static_cast<uint32_t>(value[i] != 0) << i;
    return lanes;
  }
  static uint32_t non_zeros_up_to(float limit, Reg value) {
    uint32_t lanes = 0;
    for (int i = 0; i < kLanes; ++i) lanes |= static_cast<uint32_t>(value[i] > 0 && value[i] <= limit) << i;
    return lanes;
  }
  static Reg compress(Reg value, uint32_t lanes) {
    Reg to{};
    for (int i = 0, count = 0; i < kLanes; ++i)
      if (lanes >> i & 1) to[count++] = value[i];
    return to;
  }
  static void compress_entries(const int32_t* table, uint32_t lanes, int32_t* entries) {
    for (int i = 0, count = 0; i < kLanes; ++i) {
      entries[count] = table[i];
      count += static_cast<int>(lanes >> i & 1);
    }
  }
  static Reg expand_entries(uint32_t lanes, const float* from) {
    Reg to{};
    for (int i = 0; i < kLanes; ++i)
      if (lanes >> i & 1) to[i] = *from++;
    return to;
  }
  // Entries that registers do not hold, read one by one.
  static Reg power_of_exponent(const PowerFit& fit, Reg value) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      uint32_t bits;
      const float lane = value[i];
      std::memcpy(&bits, &lane, sizeof bits);
      lanes[i] = fit.of_exponent[bits >> 23 & 0xff];
    }
    Reg to;
    std::memcpy(&to, lanes, sizeof to);
    return to;
  }
  static void transpose(Reg (&v)[kLanes]) {
    float lanes[kLanes][kLanes];
    for (int i = 0; i < kLanes; ++i)
      for (int j = 0; j < kLanes; ++j) lanes[j][i] = v[i][j];
    std::memcpy(v, lanes, sizeof(lanes));
  }
};

}  // namespace
}  // namespace addertrain::cpu
