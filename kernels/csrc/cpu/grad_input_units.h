// Walks the units of an input gradient: a window of dY for a few rows of the input, and the stride's classes in it.
#pragma once

#include "csrc/cpu/grad_input.h"

namespace addertrain::cpu {
namespace {

struct GradScratch {
  Scratch dy, x, dx;
  PointerTable dy_at, x_at;
  Memory<float*> dx_at;
  Memory<Tap> taps;
};
thread_local GradScratch grad_scratch;

inline Cut cut_grad_input(const Layer& d) {
  const int64_t dy_floats_per_row = ceil_div(d.W + 2 * d.padding_w, d.stride_w) * d.O / d.stride_h;
  return Cut(d.N, d.H, d.W, dy_floats_per_row + d.W * d.C, d.stride_h);
}

// The outputs that saw any of the unit's input rows.
inline Window dy_window(const Layer& d, const Unit& unit) {
  const int64_t p0 = floor_div(unit.row0 + d.padding_h - (d.R - 1) * d.dilation_h, d.stride_h);
  const int64_t p1 = floor_div(unit.row1 - 1 + d.padding_h, d.stride_h) + 1;
  const int64_t q0 = floor_div(d.padding_w - (d.S - 1) * d.dilation_w, d.stride_w);
  const int64_t q1 = floor_div(d.W - 1 + d.padding_w, d.stride_w) + 1;
  return {p0, p1 - p0, q0, q1 - q0};
}

struct GradUnit {
  Unit cut;
  Window window;
  Buffer dy;
  const float* x;  // pixels of the unit, position-major, C floats a position
  float* dx;
};

// Positions h = row0 + first_h + i * stride_h, w = first_w + j * stride_w of every image in the unit.
struct PositionClass {
  int64_t first_h, first_w, rows, columns;
};

inline int64_t list_taps(const Layer& d, const GradUnit& unit, const PositionClass& k, Tap* taps) {
  int64_t count = 0;
  for (int64_t r = 0; r < d.R; ++r) {
    const int64_t p = unit.cut.row0 + k.first_h + d.padding_h - r * d.dilation_h;
    if (p % d.stride_h != 0) continue;
    for (int64_t s = 0; s < d.S; ++s) {
      const int64_t q = k.first_w + d.padding_w - s * d.dilation_w;
      if (q % d.stride_w != 0) continue;
      taps[count++] = {(p / d.stride_h - unit.window.row0) * unit.dy.row_pitch +
                           (q / d.stride_w - unit.window.column0) * d.O,
                       (r * d.S + s) * d.O * Simd::kLanes};
    }
  }
  return count;
}

// Fills the pointer tables for a class, padded to a whole tile with the last position; returns how many there are.
inline int64_t list_class(const Layer& d, const GradUnit& unit, const PositionClass& k, GradScratch& scratch) {
  const int64_t count = unit.cut.images() * k.rows * k.columns;
  const float** dy_at = scratch.dy_at.entries(count + Simd::kGradRows);
  const float** x_at = scratch.x_at.entries(count + Simd::kGradRows);
  float** dx_at = scratch.dx_at.entries(count + Simd::kGradRows);
  int64_t at = 0;
  for (int64_t n = 0; n < unit.cut.images(); ++n)
    for (int64_t i = 0; i < k.rows; ++i)
      for (int64_t j = 0; j < k.columns; ++j, ++at) {
        const int64_t row = n * unit.cut.rows() + k.first_h + i * d.stride_h;
        const int64_t pixel = (row * d.W + k.first_w + j * d.stride_w) * d.C;
        dy_at[at] = unit.dy.data + n * unit.dy.image_pitch + i * unit.dy.row_pitch + j * d.O;
        x_at[at] = unit.x + pixel;
        dx_at[at] = unit.dx + pixel;
      }
  for (int64_t m = 0; m < Simd::kGradRows; ++m) {
    dy_at[count + m] = dy_at[count - 1];
    x_at[count + m] = x_at[count - 1];
    dx_at[count + m] = dx_at[count - 1];
  }
  return count;
}

inline void compute_class(const Layer& d, const PackedGradInput& packed, const GradUnit& unit, const PositionClass& k,
                          GradScratch& scratch) {
  constexpr int M = Simd::kGradRows;
  Tap* taps = scratch.taps.entries(d.R * d.S);
  const int64_t num_taps = list_taps(d, unit, k, taps);
  const int64_t count = list_class(d, unit, k, scratch);
  const float** dy_at = scratch.dy_at.entries(0);
  const float** x_at = scratch.x_at.entries(0);
  float** dx_at = scratch.dx_at.entries(0);
  for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
    const GradTile tile{packed.filters + c0 * packed.K, packed.poison + c0, taps, num_taps, d.O,
                        static_cast<int>(std::min<int64_t>(Simd::kLanes, d.C - c0))};
    for (int64_t i = 0; i < count; i += M) {
      const int64_t at = std::max<int64_t>(0, std::min(i, count - M));  // the last tile overlaps the one before it
      grad_tile<M>(tile, dy_at + at, x_at + at, dx_at + at);
    }
    for (int64_t i = 0; i < count + M; ++i) x_at[i] += Simd::kLanes, dx_at[i] += Simd::kLanes;
  }
}

inline void compute_grad_input_unit(const GradInputCall& call, const PackedGradInput& packed, const Unit& cut) {
  const Layer& d = call.layer;
  GradScratch& scratch = grad_scratch;
  const ImageShape in{d.C, d.H, d.W}, out{d.O, d.P, d.Q};
  const Window window = dy_window(d, cut);
  const Buffer dy = read_window(call.dy, out, cut.n0, cut.n1, window, scratch.dy);
  const Buffer x = read_window(call.x, in, cut.n0, cut.n1, {cut.row0, cut.rows(), 0, d.W}, scratch.x);
  const bool is_in_place = call.x.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  float* dx = is_in_place ? call.dx + (cut.n0 * d.H + cut.row0) * d.W * d.C
                          : scratch.dx.entries(cut.images() * cut.rows() * d.W * d.C);
  const GradUnit unit{cut, window, dy, x.data, dx};
  for (int64_t h = 0; h < std::min(d.stride_h, cut.rows()); ++h)
    for (int64_t w = 0; w < std::min(d.stride_w, d.W); ++w)
      compute_class(d, packed, unit, {h, w, ceil_div(cut.rows() - h, d.stride_h), ceil_div(d.W - w, d.stride_w)},
                    scratch);
  if (!is_in_place) write_planes(dx, in, cut.n0, cut.n1, cut.row0, cut.row1, call.dx);
}

inline int64_t grad_input_packed_floats(const GradInputCall& call) {
  const PackedGradInput packed(call.layer, nullptr);
  return (packed.K + 1) * packed.lanes;
}
inline int64_t grad_input_num_blocks(const GradInputCall& call) { return ceil_div(call.layer.C, Simd::kLanes); }
inline int64_t grad_input_num_units(const GradInputCall& call) { return cut_grad_input(call.layer).count(); }

inline void compute_grad_input(const GradInputCall& call, const float* packed, int64_t unit_begin, int64_t unit_end) {
  const PackedGradInput filters(call.layer, const_cast<float*>(packed));
  const Cut cut = cut_grad_input(call.layer);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_grad_input_unit(call, filters, Unit(cut, i));
}

constexpr Pass<GradInputCall> kGradInputPass{grad_input_packed_floats, grad_input_num_blocks, pack_grad_input,
                                             grad_input_num_units, compute_grad_input};

}  // namespace
}  // namespace addertrain::cpu
