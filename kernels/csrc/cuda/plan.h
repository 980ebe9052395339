// Decisions on the host, from sizes alone, so that the same call gives the same sums on every GPU: whether the tiled
// kernels serve it, over how many blocks it goes, and where its workspace lies.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "csrc/cuda/blocks.h"
#include "device/params.h"

namespace addertrain::cuda {

struct TileSizes {
  int rows, columns, steps;  // of a tile, and of a slab of k
  int slots;                 // threads that share a column's statistics
};

struct Plan {
  int tiles_m, tiles_n;      // of the largest phase
  int splits, slabs_per_split;
  int steps, pitch;          // of the packed filters, with their tails
  int64_t phase_size;        // elements of a phase of them
  int64_t outputs;
  int rows, part_rows, slots;  // a column's statistics come in `slots` parts for each `part_rows` of its rows
  int64_t column, partial, statistics, scale, bytes;  // where parts of the workspace begin; the packed filters at 0
};

constexpr int64_t kEnoughBlocks = 264;  // two for each multiprocessor of an H200; fewer, and k is split
constexpr int kMostSplits = 32, kFewestSlabs = 4;

inline int64_t num_rows(const Problem& p, int phase) {
  return int64_t{p.images} * p.vertical[phase / p.phases_w].positions * p.horizontal[phase % p.phases_w].positions;
}

inline int64_t num_blocks_of(const Problem& p, int tile_rows, int tile_columns) {
  int64_t tiles = 0;
  for (int phase = 0; phase < p.phases_h * p.phases_w; ++phase)
    tiles += quotient_up(num_rows(p, phase), tile_rows);
  return tiles * quotient_up(p.columns, tile_columns);
}

// `scale_bytes`: what a bfloat16 dY's scale takes.
inline Plan make_plan(const Problem& p, const TileSizes& tile, int element_bytes, bool has_statistics,
                      int64_t scale_bytes = 0) {
  int64_t rows = 0, taps = 0;
  for (int phase = 0; phase < p.phases_h * p.phases_w; ++phase) {
    rows = std::max(rows, num_rows(p, phase));
    taps = std::max<int64_t>(taps, p.vertical[phase / p.phases_w].taps * p.horizontal[phase % p.phases_w].taps);
  }
  Plan plan{};
  plan.tiles_m = static_cast<int>(quotient_up(rows, tile.rows));
  plan.tiles_n = static_cast<int>(quotient_up(p.columns, tile.columns));
  plan.steps = static_cast<int>(round_up(taps * p.channels, tile.steps));
  plan.pitch = static_cast<int>(round_up(p.columns, 4));
  plan.phase_size = int64_t{plan.steps} * plan.pitch;
  plan.outputs = int64_t{p.images} * p.out_h * p.out_w * p.columns;

  const int slabs = plan.steps / tile.steps;
  const int64_t blocks = num_blocks_of(p, tile.rows, tile.columns);
  const int64_t wanted = blocks < kEnoughBlocks ? 2 * kEnoughBlocks / blocks : 1;
  plan.splits = static_cast<int>(std::clamp<int64_t>(wanted, 1, std::clamp(slabs / kFewestSlabs, 1, kMostSplits)));
  plan.slabs_per_split = static_cast<int>(quotient_up(slabs, plan.splits));

  constexpr int64_t kAlign = 256;
  plan.column = round_up(plan.phase_size * p.phases_h * p.phases_w * element_bytes, kAlign);
  plan.partial = round_up(plan.column + 4 * int64_t{p.columns}, kAlign);
  plan.statistics = round_up(plan.partial + (plan.splits > 1 ? 4 * plan.outputs * plan.splits : 0), kAlign);
  // The kernel that sees complete sums takes their statistics.
  plan.rows = static_cast<int>(rows);
  plan.part_rows = plan.splits > 1 ? kSplitRows : tile.rows;
  plan.slots = plan.splits > 1 ? kSplitSlots : tile.slots;
  const int64_t num_parts = quotient_up(rows, plan.part_rows) * plan.slots;
  plan.scale = round_up(plan.statistics + (has_statistics ? 8 * num_parts * p.columns : 0), kAlign);
  plan.bytes = plan.scale + scale_bytes;
  return plan;
}

// Whether the tiled kernels' 32-bit numbers and 16-bit masks hold the layer: `source` is what is gathered, `positions`
// and `columns` the result's per image. What does not fit goes to the direct kernel, as float64 does.
inline bool fits_tiles(const Layer& d, const ImageStrides& source, int64_t source_h, int64_t source_w,
                       int64_t channels, int64_t positions, int64_t columns) {
  constexpr int64_t kMost = int64_t{1} << 30;
  constexpr int64_t kMostTileRows = 256;
  const int64_t in_phase = std::max<int64_t>(1, positions / (d.stride_h * d.stride_w) / 2);
  const int64_t images_in_tile = std::min(d.N, kMostTileRows / in_phase + 2);
  const int64_t reach_h = source_h + 2 * d.padding_h + d.R * d.dilation_h;
  const int64_t reach_w = source_w + 2 * d.padding_w + d.S * d.dilation_w;
  const double reach = double(images_in_tile) * double(source.n) + double(reach_h) * double(source.h) +
                       double(reach_w) * double(source.w) + double(channels) * double(source.c);
  const double packed = double(d.R) * double(d.S) * double(channels) * double(columns);
  return d.R <= kMaxTaps && d.S <= kMaxTaps && d.stride_h <= kMaxStride && d.stride_w <= kMaxStride &&
         reach < double(kMost) && packed < double(kMost) && double(d.N) * double(positions) < double(kMost) &&
         std::max({d.padding_h, d.padding_w, d.dilation_h, d.dilation_w}) < kMost / 64;
}

inline bool fits_forward_tiles(const Layer& d, const ImageStrides& x) {
  return fits_tiles(d, x, d.H, d.W, d.C, d.P * d.Q, d.O);
}
inline bool fits_grad_tiles(const Layer& d, const ImageStrides& dy) {
  return fits_tiles(d, dy, d.P, d.Q, d.O, d.H * d.W, d.C);
}

}  // namespace addertrain::cuda
