// Sums of |x - w| of bytes in one instruction set, and the norm that follows them. A file of instruction_sets/ defines
// `Bytes` and `Words` (int8/tiles.h) and then includes this.
#pragma once

#include "csrc/cpu/int8/pixels.h"
#include "csrc/cpu/int8/pooling.h"
#include "csrc/cpu/int8/words.h"

namespace addertrain::cpu {
namespace {

// `norm` from filter o on; the residual of the result at `at`.
inline ByteNorm norm_from(const ByteNorm& norm, int64_t o, int64_t at) {
  const uint8_t* residual = norm.residual ? norm.residual + at : nullptr;
  return {norm.scale + o, norm.shift + o, residual, norm.residual_scale, norm.low};
}

// The results of one position for `count` filters from o on, the first of them at `at`.
inline void finish(const ByteCall& call, int64_t at, int64_t o, int64_t count, const int32_t* sums, int32_t x_sum) {
  if (call.distances)
    for (int64_t j = 0; j < count; ++j) call.distances[at + j] = sums[j] - x_sum;
  else
    round_in_memory(norm_from(call.norm, o, at), count, sums, x_sum, call.bytes + at);
}

// The filters of one block over the positions of a unit, in tiles of nearly equal sizes.
void compute_block(const ByteCall& call, const UnitPixels& unit, int64_t first, int64_t count, int64_t filter) {
  const Layer& d = call.layer;
  const PackedFilters lies(d);
  const Runs runs(d);
  const int registers = PackedFilters::registers_from(d, filter);
  const int64_t lanes = registers * Bytes::kLanes, filters = std::min(lanes, d.O - filter);
  const auto* starts = reinterpret_cast<const int32_t*>(call.packed) + filter;
  const Tile* tiles = tiles_with<Bytes>(registers);
  const bool rounds = Bytes::kRoundsInRegisters && call.bytes && filters == lanes;
  alignas(64) int32_t sums[kMostPositions * kBlockFilters];
  const int64_t num_tiles = parts(count, Bytes::positions(registers)), least = count / num_tiles;
  for (int64_t t = 0, begin = 0, end = 0; t < num_tiles; ++t, begin = end) {
    end = begin + least + (t < count % num_tiles);
    const int64_t at = (first + begin) * d.O + filter;
    const TileEnd ending{sums, rounds ? call.bytes + at : nullptr, d.O, unit.sums() + begin,
                         norm_from(call.norm, filter, at)};
    tiles[end - begin - 1](unit.pixels() + begin, runs.taps, runs.length, call.packed + lies.offset_of(filter), starts,
                           ending);
    for (int64_t i = begin; i < end && !rounds; ++i) {
      const int32_t* row = sums + (i - begin) * lanes;
      if (filters == kBlockFilters)
        finish(call, at + (i - begin) * d.O, filter, kBlockFilters, row, unit.sums()[i]);
      else
        finish(call, at + (i - begin) * d.O, filter, filters, row, unit.sums()[i]);
    }
  }
}

void compute(const ByteCall& call, int64_t unit_begin, int64_t unit_end) {
  UnitPixels pixels(call);
  for_blocks(
      call.layer, unit_begin, unit_end, kBlockFilters,
      [&](int64_t first, int64_t count) { pixels.list(first, count); },
      [&](int64_t first, int64_t count, int64_t o) { compute_block(call, pixels, first, count, o); });
}

void quantise(const float* x, float factor, float zero, int64_t begin, int64_t end, uint8_t* bytes) {
  for (int64_t i = begin; i < end; ++i) bytes[i] = nearest_byte(x[i] * factor + zero, 0.0f);
}

constexpr ByteKernels byte_kernels_named(const char* name) {
  return {name,         Bytes::kLanes, Bytes::kDepth, packed_bytes, num_blocks,     pack,
          num_pixel_sums, add_up_pixels, num_units,     compute,      quantise,
          {Words::kLanes, packed_word_bytes, num_word_blocks, pack_words, padded_words, pad_to_words, num_units, compute_words},
          highest, add_up_images};
}

}  // namespace
}  // namespace addertrain::cpu
