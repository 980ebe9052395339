// Sums of |x - w| of bytes in one instruction set: filters along the registers, pixels broadcast. Two instructions serve
// a register of elements. A file of instruction_sets/ defines `Bytes` and then includes this:
//
//   Register         kLanes filters of kDepth channels each
//   kRegisters       registers of filters in a tile
//   positions(n)     positions in a tile of n registers
//   kAddsMaxima      whether `add` adds max(x, w) instead of |x - w|
//   zero, load, broadcast, add, store, add_up
#pragma once

#include <array>
#include <bit>
#include <utility>

#include "csrc/cpu/int8/pixels.h"

namespace addertrain::cpu {
namespace {

// sums[i][j]: those of position i and the j-th filter of the block.
template <int kPositions, int kRegisters>
void byte_tile(const uint8_t* const* pixels, const Runs& runs, const uint8_t* panel, int32_t* sums) {
  Bytes::Register acc[kPositions][kRegisters];
#pragma GCC unroll 16
  for (int i = 0; i < kPositions; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kRegisters; ++j) acc[i][j] = Bytes::zero();
  for (int64_t tap = 0; tap < runs.taps; ++tap, pixels += kUnitPositions) {
    const uint8_t* x[kPositions];
#pragma GCC unroll 16
    for (int i = 0; i < kPositions; ++i) x[i] = pixels[i];
    for (int64_t c = 0; c < runs.length; c += Bytes::kDepth, panel += kRegisters * kRegisterBytes) {
      Bytes::Register w[kRegisters];
#pragma GCC unroll 16
      for (int j = 0; j < kRegisters; ++j) w[j] = Bytes::load(panel + j * kRegisterBytes);
#pragma GCC unroll 16
      for (int i = 0; i < kPositions; ++i) {
        const Bytes::Register pixel = Bytes::broadcast(x[i] + c);
#pragma GCC unroll 16
        for (int j = 0; j < kRegisters; ++j) acc[i][j] = Bytes::add(acc[i][j], pixel, w[j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPositions; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kRegisters; ++j) Bytes::store(acc[i][j], sums + (i * kRegisters + j) * Bytes::kLanes);
}

using ByteTile = void (*)(const uint8_t* const*, const Runs&, const uint8_t*, int32_t*);

template <int kRegisters, int... kPositions>
constexpr auto tiles_of(std::integer_sequence<int, kPositions...>) {
  return std::array<ByteTile, sizeof...(kPositions)>{byte_tile<kPositions + 1, kRegisters>...};
}

constexpr int kMostPositions = Bytes::positions(1);

// The tile of this size.
ByteTile tile_of(int positions, int registers) {
  const auto pick = [&]<int... kBefore>(std::integer_sequence<int, kBefore...>) {
    ByteTile found = nullptr;
    ((registers == kBefore + 1
          ? void(found = tiles_of<kBefore + 1>(
                     std::make_integer_sequence<int, Bytes::positions(kBefore + 1)>{})[positions - 1])
          : void()),
     ...);
    return found;
  };
  return pick(std::make_integer_sequence<int, Bytes::kRegisters>{});
}

// The nearest integer, ties to even, of a number within 0 .. 255: 2^23 + v has no digits behind the point.
inline uint8_t nearest_byte(float v) { return static_cast<uint8_t>(std::bit_cast<uint32_t>(v + 8388608.0f)); }

inline int32_t distance_of(int32_t sum, int32_t x_sum, int32_t w_sum) {
  return kNeedsSums ? 2 * sum - x_sum - w_sum : sum;
}

// The results of one position for `count` filters from o on.
inline void finish(const ByteCall& call, int64_t at, int64_t o, int64_t count, const int32_t* sums, int32_t x_sum,
                   const int32_t* w_sums) {
  if (call.distances) {
    int32_t* y = call.distances + at;
    for (int64_t j = 0; j < count; ++j) y[j] = distance_of(sums[j], x_sum, w_sums[j]);
    return;
  }
  const float *scale = call.norm.scale + o, *shift = call.norm.shift + o;
  const float low = call.norm.low, residual_scale = call.norm.residual_scale;
  uint8_t* y = call.bytes + at;
  const auto within = [low](float v) { return nearest_byte(std::min(std::max(v, low), 255.0f)); };
  const auto value = [&](int64_t j) {
    return static_cast<float>(distance_of(sums[j], x_sum, w_sums[j])) * scale[j] + shift[j];
  };
  if (call.norm.residual) {
    const uint8_t* residual = call.norm.residual + at;
    for (int64_t j = 0; j < count; ++j)
      y[j] = within(value(j) + static_cast<float>(residual[j]) * residual_scale);
  } else {
    for (int64_t j = 0; j < count; ++j) y[j] = within(value(j));
  }
}

int64_t num_positions(const Layer& d) { return d.N * d.P * d.Q; }
int64_t num_chunks(const Layer& d) { return parts(num_positions(d), kUnitPositions); }
int64_t num_units(const Layer& d) { return parts(d.O, kUnitFilters) * num_chunks(d); }

// The filters of one block over the positions of a unit, in tiles of nearly equal sizes.
void compute_block(const ByteCall& call, const UnitPixels& unit, int64_t first, int64_t count, int64_t filter) {
  const Layer& d = call.layer;
  const PackedFilters lies(d);
  const Runs runs(d);
  const int registers = PackedFilters::registers_from(d, filter);
  const int64_t filters = std::min<int64_t>(registers * Bytes::kLanes, d.O - filter);
  const auto* w_sums = reinterpret_cast<const int32_t*>(call.packed) + filter;
  alignas(64) int32_t sums[kMostPositions * kBlockFilters];
  const int64_t num_tiles = parts(count, Bytes::positions(registers));
  for (int64_t t = 0; t < num_tiles; ++t) {
    const int64_t begin = t * count / num_tiles, end = (t + 1) * count / num_tiles;
    tile_of(static_cast<int>(end - begin), registers)(unit.pixels() + begin, runs,
                                                       call.packed + lies.offset_of(filter), sums);
    for (int64_t i = begin; i < end; ++i) {
      const int32_t* row = sums + (i - begin) * registers * Bytes::kLanes;
      const int64_t at = (first + i) * d.O + filter;
      if (filters == kBlockFilters) finish(call, at, filter, kBlockFilters, row, unit.sums()[i], w_sums);
      else finish(call, at, filter, filters, row, unit.sums()[i], w_sums);
    }
  }
}

void compute(const ByteCall& call, int64_t unit_begin, int64_t unit_end) {
  const Layer& d = call.layer;
  UnitPixels pixels(call);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t first = unit % num_chunks(d) * kUnitPositions, filter = unit / num_chunks(d) * kUnitFilters;
    const int64_t count = std::min(kUnitPositions, num_positions(d) - first);
    pixels.list(first, count);
    for (int64_t o = filter; o < std::min(d.O, filter + kUnitFilters); o += kBlockFilters)
      compute_block(call, pixels, first, count, o);
  }
}

void quantise(const float* x, float factor, float zero, int64_t begin, int64_t end, uint8_t* bytes) {
  for (int64_t i = begin; i < end; ++i)
    bytes[i] = nearest_byte(std::min(std::max(x[i] * factor + zero, 0.0f), 255.0f));
}

constexpr ByteKernels byte_kernels_named(const char* name) {
  return {name,           Bytes::kLanes, Bytes::kDepth, packed_bytes, num_blocks, pack,
          num_pixel_sums, add_up_pixels, num_units,     compute,      quantise};
}

}  // namespace
}  // namespace addertrain::cpu
