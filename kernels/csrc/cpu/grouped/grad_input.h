// The input gradient of layers in many small groups, for one instruction set (a `Simd` is in scope): the channels of all
// groups lie along the registers, and dY is spread into a plane for each filter of a group.
//
//   dX[c] = sum_{o,r,s} dY[g O + o] HT(F[g O + o] - X[c])
//
// The inputs of a row that belong to one phase of the stride read outputs side by side (device/stride_phases.h).
#pragma once

#include "csrc/cpu/grad_input/positions.h"
#include "csrc/cpu/grouped/sliding.h"
#include "device/stride_phases.h"

namespace addertrain::cpu {
namespace {

inline Planes planes_of(const DenseGradInputCall& call) { return {call.groups, call.layer.O, call.layer.C}; }

// The layer of the pixels: a pixel of x has every group's channels, a pixel of dY its planes.
inline Layer spread_layer(const DenseGradInputCall& call) {
  const Planes planes = planes_of(call);
  Layer d = call.layer;
  d.C = planes.lanes(), d.O = planes.pixel();
  return d;
}

// Packed filters: [register of channels][r][s][o of the group][lane]; then the poison of each channel (grad_input/tiles.h).
inline int64_t grouped_grad_floats(const DenseGradInputCall& call) {
  const Layer& d = call.layer;
  return planes_of(call).registers() * Simd::kLanes * (d.R * d.S * d.O + 1);
}
inline int64_t grouped_grad_blocks(const DenseGradInputCall& call) { return planes_of(call).registers(); }

inline bool slides(const DenseGradInputCall& call) {
  const Layer& d = call.layer;
  return can_slide(d, planes_of(call)) && d.stride_h == 1 && d.stride_w == 1 && d.W >= kTileColumns;
}
inline Cut cut_grouped_grad(const DenseGradInputCall& call) {
  const Layer d = spread_layer(call);
  return slides(call) ? Cut(d.N, d.H, d.W, 2 * d.W * d.C, kTileRows) : cut_grad_input(d);
}
inline int64_t grouped_grad_units(const DenseGradInputCall& call) { return cut_grouped_grad(call).count(); }

inline float* poison_of(const DenseGradInputCall& call, float* packed) {
  const Layer& d = call.layer;
  return packed + planes_of(call).registers() * Simd::kLanes * d.R * d.S * d.O;
}

inline void pack_grouped_grad(const DenseGradInputCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const int64_t lanes = planes_of(call).lanes(), c0 = block * Simd::kLanes;
  float* to = packed + c0 * d.R * d.S * d.O;
  Simd::Reg poison = Simd::zero();
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t o = 0; o < d.O; ++o, to += Simd::kLanes) {
        for (int64_t lane = 0; lane < Simd::kLanes; ++lane) {
          const int64_t c = c0 + lane, group = c / d.C;
          to[lane] = c < lanes ? filter_element(call.w, d, call.w_order, group * d.O + o, {c % d.C, r, s}) : 0.0f;
        }
        poison = Simd::keep_nan(poison, Simd::load(to));
      }
  Simd::store(poison_of(call, packed) + c0, poison);
}

// The window of dY that saw the unit's rows, zeros where it reaches over the edges of the response.
inline Window grouped_dy_window(const Layer& d, const Unit& cut) {
  const int64_t p0 = floor_div(cut.row0 + d.padding_h - (d.R - 1) * d.dilation_h, d.stride_h);
  const int64_t p1 = floor_div(cut.row1 - 1 + d.padding_h, d.stride_h) + 1;
  const int64_t q0 = floor_div(d.padding_w - (d.S - 1) * d.dilation_w, d.stride_w);
  const int64_t q1 = floor_div(d.W - 1 + d.padding_w, d.stride_w) + 1;
  return {p0, p1 - p0, q0, q1 - q0};
}

// The taps that lead from the inputs of one row and one phase of its columns to outputs.
struct GradTaps {
  const int64_t* dy;       // offset in the window of the output to which the tap leads from the phase's first input
  const int64_t* filters;  // offset of the tap in the packed block
  int64_t count;
};

inline GradTaps list_grad_taps(const Layer& d, const Planes& planes, int64_t h, int64_t phase, const Window& window,
                               int64_t row_pitch, OffsetTable& table) {
  int64_t* dy = table.entries(2 * d.R * d.S * planes.of_group);
  int64_t* filters = dy + d.R * d.S * planes.of_group;
  const StridePhase down{h, d.stride_h, d.padding_h, d.dilation_h};
  const StridePhase across{phase, d.stride_w, d.padding_w, d.dilation_w};
  int64_t count = 0;
  for (int64_t r = 0, p; r < d.R; ++r)
    for (int64_t s = 0, q; s < d.S; ++s) {
      if (!down.find_shift(r, p) || !across.find_shift(s, q)) continue;
      for (int64_t o = 0; o < planes.of_group; ++o, ++count) {
        dy[count] = (p - window.row0) * row_pitch + (q - window.column0) * planes.pixel() + o * planes.lanes();
        filters[count] = ((r * d.S + s) * planes.of_group + o) * Simd::kLanes;
      }
    }
  return {dy, filters, count};
}

// M neighbouring positions of a phase and one register of channels: acc += dY * HT(w - x), lane by lane. Pixels of x and
// dX lie `step` floats apart, those of dY `dy_step`.
template <int M>
inline void grouped_grad_tile(const GradTaps& taps, const float* filters, const float* poison, const float* dy,
                              int64_t dy_step, const float* x, int64_t step, int lanes, float* dx) {
  Simd::Reg acc[M], at_x[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) acc[m] = Simd::zero(), at_x[m] = load_lanes_of(x + m * step, lanes);
  const auto add_tap = [&](int64_t k, const auto& load) {
    const Simd::Reg filter = Simd::load(filters + taps.filters[k]);
    const float* at = dy + taps.dy[k];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
      acc[m] = Simd::add_clipped(acc[m], load(at + m * dy_step), filter, at_x[m], m % 2 == 1);
  };
  if (lanes == Simd::kLanes)
    for (int64_t k = 0; k < taps.count; ++k) add_tap(k, [](const float* from) { return Simd::load(from); });
  else
    for (int64_t k = 0; k < taps.count; ++k)
      add_tap(k, [lanes](const float* from) { return Simd::load_first(from, lanes); });
  const Simd::Reg nan = Simd::load(poison);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    store_lanes_of(dx + m * step, Simd::add(Simd::keep_nan(acc[m], at_x[m]), nan), lanes);
}

// M rows of inputs at stride 1. The rows of dY are taken upwards and its columns leftwards, which is the order (r, s) of
// the taps.
template <int S, int M, bool kIsInside>
[[gnu::noinline]] void sliding_grad_tile(const TilePixels<S + M - 1, S + kTileColumns - 1>& dy,
                                         const TilePixels<M, kTileColumns>& x, const float* filters,
                                         const float* poison, int64_t o, int lanes, const TileResults& dx) {
  constexpr int N = kTileColumns;
  Simd::Reg acc[M][N], at_x[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    x.template load<kIsInside>(m, o, lanes, at_x[m]);
    if (x.ahead != 0) x.template fetch<N>(m, o);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[m][n] = Simd::zero();
  }
#pragma GCC unroll 16
  for (int i = 0; i < S + M - 1; ++i) {
    Simd::Reg g[S + N - 1];
    dy.template load<kIsInside>(S + M - 2 - i, o, lanes, g);
    if (i < M && dy.ahead != 0) dy.template fetch<N>(S + M - 2 - i, o);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const int r = i - (M - 1 - m);
      if (r < 0 || r >= S) continue;
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) {
        const Simd::Reg filter = Simd::load(filters + (r * S + s) * Simd::kLanes);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
          acc[m][n] = Simd::add_clipped(acc[m][n], g[n + S - 1 - s], filter, at_x[m][n], n % 2 == 1);
      }
    }
  }
  const Simd::Reg nan = Simd::load(poison);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[m][n] = Simd::add(Simd::keep_nan(acc[m][n], at_x[m][n]), nan);
  dx.store(acc, o, lanes);
}

template <int S>
inline void compute_sliding_grad(const Layer& d, const float* packed, const float* poison, const Unit& cut,
                                 const PixelRows& dy, const PixelRows& x, float* dx) {
  const bool is_large = is_streamed(d.N * d.H * d.W * d.C) && x.is_in_place && dy.is_in_place;
  for (int64_t n = 0; n < cut.images(); ++n)
    for_row_pairs(cut.rows(), [&](auto height, int64_t i) {
      constexpr int M = decltype(height)::value;
      for_tile_columns(d.W, [&](int64_t v) {
        const int64_t h = cut.row0 + i, rows_ahead = is_large ? M : 0;
        const TilePixels<S + M - 1, S + kTileColumns - 1> g(dy, n, h + d.padding_h - (S - 1), v + d.padding_w - (S - 1),
                                                            rows_ahead);
        const TilePixels<M, kTileColumns> at_x(x, n, h, v, rows_ahead);
        const TileResults to{dx + ((n * cut.rows() + i) * d.W + v) * d.C, d.W * d.C, d.C,
                             is_large && fills_lines(dx, d.C)};
        const bool is_inside = g.is_inside();
        for (int64_t c = 0; c < d.C; c += Simd::kLanes) {
          const int lanes = lanes_left(d.C, c);
          if (is_inside && lanes == Simd::kLanes)
            sliding_grad_tile<S, M, true>(g, at_x, packed + c * S * S, poison + c, c, lanes, to);
          else
            sliding_grad_tile<S, M, false>(g, at_x, packed + c * S * S, poison + c, c, lanes, to);
        }
      });
    });
}

inline void slide_grad_unit(const DenseGradInputCall& call, const Layer& d, const float* packed, const float* poison,
                            const Unit& cut, float* dx) {
  GroupedScratch& scratch = grouped_scratch;
  const PixelRows dy = read_rows(call.dy, {d.O, d.P, d.Q}, cut, grouped_dy_window(d, cut), scratch.image);
  const PixelRows x = read_rows(call.x, {d.C, d.H, d.W}, cut, {cut.row0, cut.rows(), 0, d.W}, scratch.x);
  for_filter_columns(d.S, [&](auto columns) {
    compute_sliding_grad<decltype(columns)::value>(d, packed, poison, cut, dy, x, dx);
  });
}

inline void gather_grad_unit(const DenseGradInputCall& call, const Layer& d, const float* packed, const float* poison,
                             const Unit& cut, float* dx) {
  const Planes planes = planes_of(call);
  GroupedScratch& scratch = grouped_scratch;
  const Window window = grouped_dy_window(d, cut), rows{cut.row0, cut.rows(), 0, d.W};
  const Buffer dy = read_spread(call.dy, planes, d.P, d.Q, cut, window, scratch);
  const Buffer x = read_window(call.x, {d.C, d.H, d.W}, cut.n0, cut.n1, rows, scratch.x);
  const int64_t filter_floats = d.R * d.S * planes.of_group, step = d.stride_w * d.C;
  for (int64_t i = 0; i < cut.rows(); ++i)
    for (int64_t phase = 0; phase < std::min(d.stride_w, d.W); ++phase) {
      const GradTaps taps = list_grad_taps(d, planes, cut.row0 + i, phase, window, dy.row_pitch, scratch.taps);
      for (int64_t n = 0; n < cut.images(); ++n) {
        const int64_t first = ((n * cut.rows() + i) * d.W + phase) * d.C;
        const float* image = dy.data + n * dy.image_pitch;
        for_positions(ceil_div(d.W - phase, d.stride_w), [&](auto width, int64_t j) {
          for (int64_t c = 0; c < d.C; c += Simd::kLanes)
            grouped_grad_tile<decltype(width)::value>(taps, packed + c * filter_floats, poison + c,
                                                      image + j * planes.pixel() + c, planes.pixel(),
                                                      x.data + first + j * step + c, step, lanes_left(d.C, c),
                                                      dx + first + j * step + c);
        });
      }
    }
}

inline void compute_grouped_grad_unit(const DenseGradInputCall& call, const float* packed, const Unit& cut) {
  const Layer d = spread_layer(call);
  const bool is_in_place = call.x.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  float* dx = is_in_place ? call.dx + (cut.n0 * d.H + cut.row0) * d.W * d.C
                          : grouped_scratch.result.entries(cut.images() * cut.rows() * d.W * d.C);
  const float* poison = poison_of(call, const_cast<float*>(packed));
  if (slides(call))
    slide_grad_unit(call, d, packed, poison, cut, dx);
  else
    gather_grad_unit(call, d, packed, poison, cut, dx);
  if (!is_in_place) write_planes(dx, {d.C, d.H, d.W}, cut.n0, cut.n1, cut.row0, cut.row1, call.dx);
}

inline void compute_grouped_grad(const DenseGradInputCall& call, const float* packed, int64_t unit_begin,
                                 int64_t unit_end) {
  const Cut cut = cut_grouped_grad(call);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_grouped_grad_unit(call, packed, Unit(cut, i));
  Simd::finish_streams();
}

constexpr PassFunctions<DenseGradInputCall> kGroupedGradInputPass{
    grouped_grad_floats, grouped_grad_blocks, pack_grouped_grad, grouped_grad_units, compute_grouped_grad};

}  // namespace
}  // namespace addertrain::cpu
