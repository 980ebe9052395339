// Sums over patches in one instruction set, with filters along the registers and pixels broadcast: about two instructions
// for a register of elements. A file of instruction_sets/ defines what is summed before it includes this, each as a struct:
//
//   Register         kLanes filters of kDepth bytes each
//   kRegisters       registers of filters in a tile
//   positions(n)     positions in a tile of n registers
//   kAddsMaxima      whether `add` adds 2 max(x, w) instead of |x - w|
//   kRoundsInRegisters  whether there is `round`, which turns the sums of a position into bytes
//   zero, load, broadcast, add, store, add_up
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "csrc/cpu/int8/byte_kernels.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kUnitFilters = 64;  // those that share a list of pixels
constexpr int64_t kUnitPositions = 96;

constexpr int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// A unit is up to kUnitFilters filters at up to kUnitPositions positions; those of the same positions follow each other:
// while their pixels are near, all filters meet them.
inline int64_t units_a_chunk(const Layer& d) { return parts(d.O, kUnitFilters); }
inline int64_t num_units(const Layer& d) { return units_a_chunk(d) * parts(d.N * d.P * d.Q, kUnitPositions); }

// Calls list(first position, count) before the first unit of these positions, and block(first position, count, filter)
// for every `block_filters` filters of every unit.
template <typename List, typename Block>
inline void for_blocks(const Layer& d, int64_t unit_begin, int64_t unit_end, int64_t block_filters, const List& list,
                       const Block& block) {
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t first = unit / units_a_chunk(d) * kUnitPositions, filter = unit % units_a_chunk(d) * kUnitFilters;
    const int64_t count = std::min(kUnitPositions, d.N * d.P * d.Q - first);
    if (unit == unit_begin || filter == 0) list(first, count);
    for (int64_t o = filter; o < std::min(d.O, filter + kUnitFilters); o += block_filters) block(first, count, o);
  }
}

// What becomes of a tile's sums. Without `bytes` they are written to `sums` as [position][register][lane].
struct TileEnd {
  int32_t* sums;
  uint8_t* bytes;          // of the first position, and `stride` bytes further for each of the others
  int64_t stride;
  const int32_t* x_sums;   // of each position: what is subtracted from its sums
  ByteNorm norm;           // from the first filter on; the residual lies as `bytes`
};

// The bytes of a tile, without a detour through memory.
template <typename Set, int kPositions, int kRegisters>
inline void round_tile(const typename Set::Register (&sums)[kPositions][kRegisters], const TileEnd& end) {
  if constexpr (Set::kRoundsInRegisters) {
#pragma GCC unroll 16
    for (int i = 0; i < kPositions; ++i) {
      const uint8_t* residual = end.norm.residual ? end.norm.residual + i * end.stride : nullptr;
      Set::round(sums[i], end.x_sums[i], end.norm, residual, end.bytes + i * end.stride);
    }
  }
}

// The sums of kPositions positions and the filters of one block, which begin at `starts`.
template <typename Set, int kPositions, int kRegisters>
void tile(const uint8_t* const* pixels, int64_t taps, int64_t length, const uint8_t* panel, const int32_t* starts,
          const TileEnd& end) {
  constexpr int64_t kRegisterBytes = sizeof(typename Set::Register);
  typename Set::Register acc[kPositions][kRegisters];
#pragma GCC unroll 16
  for (int i = 0; i < kPositions; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kRegisters; ++j) {
      if constexpr (Set::kAddsMaxima) acc[i][j] = Set::load(reinterpret_cast<const uint8_t*>(starts + j * Set::kLanes));
      else acc[i][j] = Set::zero();
    }
  for (int64_t tap = 0; tap < taps; ++tap, pixels += kUnitPositions) {
    const uint8_t* x[kPositions];
#pragma GCC unroll 16
    for (int i = 0; i < kPositions; ++i) x[i] = pixels[i];
    for (int64_t c = 0; c < length; c += Set::kDepth, panel += kRegisters * kRegisterBytes) {
      typename Set::Register w[kRegisters];
#pragma GCC unroll 16
      for (int j = 0; j < kRegisters; ++j) w[j] = Set::load(panel + j * kRegisterBytes);
#pragma GCC unroll 16
      for (int i = 0; i < kPositions; ++i) {
        const typename Set::Register pixel = Set::broadcast(x[i] + c);
#pragma GCC unroll 16
        for (int j = 0; j < kRegisters; ++j) acc[i][j] = Set::add(acc[i][j], pixel, w[j]);
      }
    }
  }
  if (end.bytes) return round_tile<Set>(acc, end);
#pragma GCC unroll 16
  for (int i = 0; i < kPositions; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kRegisters; ++j) Set::store(acc[i][j], end.sums + (i * kRegisters + j) * Set::kLanes);
}

using Tile = void (*)(const uint8_t* const*, int64_t, int64_t, const uint8_t*, const int32_t*, const TileEnd&);

template <typename Set, int kRegisters, int... kBefore>
const Tile* tiles_of(std::integer_sequence<int, kBefore...>) {
  static constexpr Tile tiles[] = {tile<Set, kBefore + 1, kRegisters>...};
  return tiles;
}

// The tiles of 1, 2, ... positions with this many registers.
template <typename Set>
const Tile* tiles_with(int registers) {
  const auto pick = [registers]<int... kBefore>(std::integer_sequence<int, kBefore...>) {
    const Tile* found = nullptr;
    ((registers == kBefore + 1
          ? void(found = tiles_of<Set, kBefore + 1>(std::make_integer_sequence<int, Set::positions(kBefore + 1)>{}))
          : void()),
     ...);
    return found;
  };
  return pick(std::make_integer_sequence<int, Set::kRegisters>{});
}

// The nearest integer within low .. 255, ties to even: 2^23 + v has no digits behind the point. A NaN becomes `low`:
// std::max gives its first argument unless the second is larger.
inline uint8_t nearest_byte(float v, float low) {
  return static_cast<uint8_t>(std::bit_cast<uint32_t>(std::min(std::max(low, v), 255.0f) + 8388608.0f));
}

// The bytes of one position for `count` filters.
inline void round_in_memory(const ByteNorm& norm, int64_t count, const int32_t* sums, int32_t x_sum, uint8_t* y) {
  const auto within = [&](float v) { return nearest_byte(v, norm.low); };
  const auto value = [&](int64_t j) { return static_cast<float>(sums[j] - x_sum) * norm.scale[j] + norm.shift[j]; };
  if (norm.residual)
    for (int64_t j = 0; j < count; ++j)
      y[j] = within(value(j) + static_cast<float>(norm.residual[j]) * norm.residual_scale);
  else
    for (int64_t j = 0; j < count; ++j) y[j] = within(value(j));
}

}  // namespace
}  // namespace addertrain::cpu
