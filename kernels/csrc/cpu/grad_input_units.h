// Walks the units of an input gradient: a window of dY for a few rows of the input, cut into positions
// that see the same taps.
#pragma once

#include "csrc/cpu/grad_input.h"
#include "csrc/cpu/grad_input_thin.h"

namespace addertrain::cpu {
namespace {

inline Cut cut_grad_input(const Layer& d) {
  const int64_t dy_floats_per_row = ceil_div(d.W + 2 * d.padding_w, d.stride_w) * d.O / d.stride_h;
  return Cut(d.N, d.H, d.W, dy_floats_per_row + d.W * d.C, d.stride_h);
}

// The rows of outputs that saw any of the unit's input rows, without those outside the output.
inline Window dy_window(const Layer& d, const Unit& unit) {
  const int64_t p0 = floor_div(unit.row0 + d.padding_h - (d.R - 1) * d.dilation_h, d.stride_h);
  const int64_t p1 = floor_div(unit.row1 - 1 + d.padding_h, d.stride_h) + 1;
  const int64_t first = std::clamp<int64_t>(p0, 0, d.P);
  return {first, std::clamp<int64_t>(p1, first, d.P) - first, 0, d.Q};
}

// One axis of the layer for one residue of the stride: inputs start + residue + i * stride below start + inputs.
struct Axis {
  int64_t start, inputs, residue, taps, stride, padding, dilation, outputs;

  int64_t size() const { return ceil_div(inputs - residue, stride); }
};

struct GradScratch {
  Scratch dy, x, dx, zeros;
  Memory<Position> positions;
  OffsetTable shifts;
};
thread_local GradScratch grad_scratch;

struct GradUnit {
  Unit cut;
  int64_t first_output_row;
  Buffer dy;
  const float* x;  // pixels of the unit, position-major, C floats a position
  float* dx;
};

// ---------------------------------------------------------------- one axis

// Output that input i of the residue reads through `tap` is shift(tap) + i; false where the stride leaves none.
inline bool find_shift(const Axis& axis, int64_t tap, int64_t& shift) {
  const int64_t scaled = axis.start + axis.residue + axis.padding - tap * axis.dilation;
  if (scaled % axis.stride != 0) return false;
  shift = scaled / axis.stride;
  return true;
}

// The taps through which input i sees an output, as bits.
inline uint64_t taps_of(const Axis& axis, int64_t i) {
  uint64_t bits = 0;
  for (int64_t tap = 0; tap < axis.taps; ++tap) {
    int64_t shift;
    if (find_shift(axis, tap, shift) && shift + i >= 0 && shift + i < axis.outputs) bits |= uint64_t{1} << tap;
  }
  return bits;
}

// First input after i that sees other taps: where a tap enters or leaves the output.
inline int64_t end_of_segment(const Axis& axis, int64_t i) {
  int64_t end = axis.size();
  for (int64_t tap = 0; tap < axis.taps; ++tap) {
    int64_t shift;
    if (!find_shift(axis, tap, shift)) continue;
    if (-shift > i) end = std::min(end, -shift);
    if (axis.outputs - shift > i) end = std::min(end, axis.outputs - shift);
  }
  return end;
}

// ---------------------------------------------------------------- one residue of a unit

// Positions of rows [i0, i1) x columns [j0, j1), which all see `taps`.
inline int64_t append_positions(const Layer& d, const GradUnit& unit, const Axis& down, const Axis& across, int64_t i0,
                                int64_t i1, int64_t j0, int64_t j1, Taps taps, Position* to) {
  int64_t at = 0;
  for (int64_t n = 0; n < unit.cut.images(); ++n)
    for (int64_t i = i0; i < i1; ++i) {
      const int64_t row = n * unit.cut.rows() + down.residue + i * d.stride_h;
      const float* dy_row = unit.dy.data + n * unit.dy.image_pitch + (i - unit.first_output_row) * unit.dy.row_pitch;
      for (int64_t j = j0; j < j1; ++j)
        to[at++] = {dy_row + j * d.O, (row * d.W + across.residue + j * d.stride_w) * d.C, taps};
    }
  return at;
}

constexpr int64_t kMostRowsOfGrad = kThinSums;  // no tile is taller

// All positions of a residue, those with the same taps side by side; padded to a whole tile with the last one.
inline int64_t list_positions(const Layer& d, const GradUnit& unit, const Axis& down, const Axis& across,
                              Memory<Position>& table) {
  Position* positions = table.entries(unit.cut.images() * down.size() * across.size() + kMostRowsOfGrad);
  int64_t count = 0;
  for (int64_t i = 0; i < down.size(); i = end_of_segment(down, i))
    for (int64_t j = 0; j < across.size(); j = end_of_segment(across, j))
      count += append_positions(d, unit, down, across, i, end_of_segment(down, i), j, end_of_segment(across, j),
                                {taps_of(down, i), taps_of(across, j)}, positions + count);
  for (int64_t m = 0; m < kMostRowsOfGrad; ++m) positions[count + m] = positions[count - 1];
  return count;
}

// Runs tile(first position) over `count` positions, `rows` at a time; the last tile overlaps the one before it.
template <typename Tile>
inline void for_tiles(int64_t count, int64_t rows, const Tile& tile) {
  for (int64_t i = 0; i < count; i += rows) tile(std::max<int64_t>(0, std::min(i, count - rows)));
}

inline void compute_residue(const Layer& d, const float* packed, const GradUnit& unit, const Axis& down,
                            const Axis& across, GradScratch& scratch) {
  const int64_t count = list_positions(d, unit, down, across, scratch.positions);
  const Position* positions = scratch.positions.entries(0);
  int64_t* shifts_down = scratch.shifts.entries(d.R + d.S);
  int64_t* shifts_across = shifts_down + d.R;
  for (int64_t r = 0, shift; r < d.R; ++r) shifts_down[r] = find_shift(down, r, shift) ? shift * unit.dy.row_pitch : 0;
  for (int64_t s = 0, shift; s < d.S; ++s) shifts_across[s] = find_shift(across, s, shift) ? shift * d.O : 0;
  float* zeros = scratch.zeros.entries(d.O);
  std::memset(zeros, 0, sizeof(float) * d.O);
  GradTile tile{nullptr, nullptr, zeros, shifts_down, shifts_across, d.R, d.S, d.O, 0};
  if (is_thin(d)) {
    const PackedThin thin(d, const_cast<float*>(packed));
    tile.filters = thin.filters, tile.poison = thin.poison;
    const ThinTileOf of(d.C);
    for_tiles(count, of.rows, [&](int64_t at) { of.tile(tile, positions + at, unit.x, unit.dx); });
    return;
  }
  const PackedGradInput filters(d, const_cast<float*>(packed));
  for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
    tile.filters = filters.filters + c0 * filters.K, tile.poison = filters.poison + c0;
    tile.channels = static_cast<int>(std::min<int64_t>(Simd::kLanes, d.C - c0));
    for_tiles(count, Simd::kGradRows,
              [&](int64_t at) { grad_tile<Simd::kGradRows>(tile, positions + at, unit.x + c0, unit.dx + c0); });
  }
}

// ---------------------------------------------------------------- units

inline void compute_grad_input_unit(const GradInputCall& call, const float* packed, const Unit& cut) {
  const Layer& d = call.layer;
  GradScratch& scratch = grad_scratch;
  const ImageShape in{d.C, d.H, d.W}, out{d.O, d.P, d.Q};
  const Window window = dy_window(d, cut);
  const Buffer dy = read_window(call.dy, out, cut.n0, cut.n1, window, scratch.dy);
  const Buffer x = read_window(call.x, in, cut.n0, cut.n1, {cut.row0, cut.rows(), 0, d.W}, scratch.x);
  const bool is_in_place = call.x.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  float* dx = is_in_place ? call.dx + (cut.n0 * d.H + cut.row0) * d.W * d.C
                          : scratch.dx.entries(cut.images() * cut.rows() * d.W * d.C);
  const GradUnit unit{cut, window.row0, dy, x.data, dx};
  for (int64_t h = 0; h < std::min(d.stride_h, cut.rows()); ++h)
    for (int64_t v = 0; v < std::min(d.stride_w, d.W); ++v) {
      const Axis down{cut.row0, cut.rows(), h, d.R, d.stride_h, d.padding_h, d.dilation_h, d.P};
      const Axis across{0, d.W, v, d.S, d.stride_w, d.padding_w, d.dilation_w, d.Q};
      compute_residue(d, packed, unit, down, across, scratch);
    }
  if (!is_in_place) write_planes(dx, in, cut.n0, cut.n1, cut.row0, cut.row1, call.dx);
}

inline int64_t grad_input_packed_floats(const GradInputCall& call) {
  const PackedGradInput packed(call.layer, nullptr);
  return is_thin(call.layer) ? PackedThin::floats(call.layer) : (packed.K + 1) * packed.lanes;
}
inline int64_t grad_input_num_blocks(const GradInputCall& call) {
  return is_thin(call.layer) ? 1 : ceil_div(call.layer.C, Simd::kLanes);
}
inline int64_t grad_input_num_units(const GradInputCall& call) { return cut_grad_input(call.layer).count(); }

inline void pack_grad_input_block(const GradInputCall& call, int64_t block, float* packed) {
  if (is_thin(call.layer))
    pack_thin(call, packed);
  else
    pack_grad_input(call, block, packed);
}

inline void compute_grad_input(const GradInputCall& call, const float* packed, int64_t unit_begin, int64_t unit_end) {
  const Cut cut = cut_grad_input(call.layer);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_grad_input_unit(call, packed, Unit(cut, i));
}

constexpr Pass<GradInputCall> kGradInputPass{grad_input_packed_floats, grad_input_num_blocks, pack_grad_input_block,
                                             grad_input_num_units, compute_grad_input};

}  // namespace
}  // namespace addertrain::cpu
