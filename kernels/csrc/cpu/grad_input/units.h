// Walks the units of an input gradient: a few rows of the input and the window of dY that saw them, one phase of the
// stride after the other.
#pragma once

#include "csrc/cpu/grad_input/lists.h"
#include "csrc/cpu/grad_input/thin.h"
#include "csrc/cpu/grad_input/tiles.h"

namespace addertrain::cpu {
namespace {

struct GradScratch {
  Scratch dy, x, dx, zeros, sums;
  PhaseScratch phase;
  ListScratch lists;
};
thread_local GradScratch grad_scratch;

// Runs tile(first position) over `count` positions, `rows` at a time; the last tile overlaps the one before it.
template <typename Tile>
inline void for_tiles(int64_t count, int64_t rows, const Tile& tile) {
  for (int64_t i = 0; i < count; i += rows) tile(std::max<int64_t>(0, std::min(i, count - rows)));
}

// The gradients at every position of a phase, whatever x is there.
inline void compute_phase(const Layer& d, const float* packed, const PhasePositions& phase, GradTile tile,
                          const float* x, float* dx) {
  if (is_thin(d)) {
    const PackedThin thin(d, const_cast<float*>(packed));
    tile.filters = thin.filters, tile.poison = thin.poison;
    const ThinTileOf of(d.C);
    for_tiles(phase.count, of.rows, [&](int64_t at) { of.tile(tile, phase.positions + at, x, dx); });
    return;
  }
  const PackedGradInput filters(d, const_cast<float*>(packed));
  for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
    tile.filters = filters.filters + c0 * filters.K, tile.poison = filters.poison + c0;
    tile.channels = lanes_left(d.C, c0);
    for_tiles(phase.count, Simd::kGradRows,
              [&](int64_t at) { grad_tile<Simd::kGradRows>(tile, phase.positions + at, x + c0, dx + c0); });
  }
}

// ---------------------------------------------------------------- units

// `listed` says which channels where lists are walked; the other passes compute all of them.
inline void compute_grad_input_unit(const DenseGradInputCall& call, const float* packed, const Unit& cut,
                                    const ListedChannels& listed) {
  const Layer& d = call.layer;
  GradScratch& scratch = grad_scratch;
  const ImageShape in{d.C, d.H, d.W}, out{d.O, d.P, d.Q};
  const Window window = dy_window(d, cut);
  const Buffer dy = read_window(call.dy, out, cut.n0, cut.n1, window, scratch.dy);
  const Buffer x = read_window(call.x, in, cut.n0, cut.n1, {cut.row0, cut.rows(), 0, d.W}, scratch.x);
  const bool is_in_place = call.x.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  const int64_t floats = cut.images() * cut.rows() * d.W * d.C;
  float* dx = is_in_place ? call.dx + (cut.n0 * d.H + cut.row0) * d.W * d.C : scratch.dx.entries(floats);
  float* zeros = scratch.zeros.entries(d.O);
  std::memset(zeros, 0, sizeof(float) * d.O);
  const GradUnit unit{cut, window.row0, dy, x.data, call.only_non_zeros ? near_columns(d) : d.W};
  const float* output_sums = nullptr;
  if (call.only_non_zeros && has_near_tiles(d))
    output_sums = sum_outputs(d, unit, window, scratch.lists.output_sums);
  for_phases(d, unit, scratch.phase, [&](const PhasePositions& phase) {
    const GradTile tile{nullptr, nullptr, zeros, phase.down, phase.across, d.R, d.S, d.O, 0};
    if (call.only_non_zeros)
      compute_non_zeros(call, PackedLists(d, const_cast<float*>(packed)), unit, phase, output_sums, dx,
                        listed, scratch.lists);
    else
      compute_phase(d, packed, phase, tile, x.data, dx);
  });
  if (!is_in_place) write_planes(dx, in, cut.n0, cut.n1, cut.row0, cut.row1, call.dx);
}

inline int64_t grad_input_packed_floats(const DenseGradInputCall& call) {
  if (call.only_non_zeros) return PackedLists::floats(call.layer);
  const PackedGradInput packed(call.layer, nullptr);
  return is_thin(call.layer) ? PackedThin::floats(call.layer) : (packed.K + 1) * packed.lanes;
}
inline int64_t grad_input_num_blocks(const DenseGradInputCall& call) {
  return is_thin(call.layer) && !call.only_non_zeros ? 1 : ceil_div(call.layer.C, Simd::kLanes);
}
inline int64_t grad_input_num_units(const DenseGradInputCall& call) { return cut_grad_input(call.layer).count(); }

inline void pack_grad_input_block(const DenseGradInputCall& call, int64_t block, float* packed) {
  if (call.only_non_zeros)
    pack_lists(call, block, packed);
  else if (is_thin(call.layer))
    pack_thin(call, packed);
  else
    pack_grad_input(call, block, packed);
}

inline void compute_grad_input(const DenseGradInputCall& call, const float* packed, int64_t unit_begin,
                               int64_t unit_end) {
  const Cut cut = cut_grad_input(call.layer);
  for (int64_t i = unit_begin; i < unit_end; ++i)
    compute_grad_input_unit(call, packed, Unit(cut, i), {0, call.layer.C, nullptr});
}

constexpr PassFunctions<DenseGradInputCall> kGradInputPass{
    grad_input_packed_floats, grad_input_num_blocks, pack_grad_input_block, grad_input_num_units, compute_grad_input};

}  // namespace
}  // namespace addertrain::cpu
