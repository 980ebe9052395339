// The response of layers in many small groups, for one instruction set (a `Simd` is in scope).
//
//   Y = sum (b - |X - F|),   b = |F| for the offset-free response, else 0
//
// Each term is rounded by itself, so that x = 0 adds exactly 0 to an offset-free response, and x and w that lie close
// together lose no digits. With so few terms the plain sum takes no longer than the memory that it reads.
#pragma once

#include <cmath>

#include "csrc/cpu/grouped/sliding.h"

namespace addertrain::cpu {
namespace {

inline Planes planes_of(const DenseForwardCall& call) { return {call.groups, call.layer.C, call.layer.O}; }

inline int64_t taps_of_lane(const Layer& d, const Planes& planes) { return d.R * d.S * planes.of_group; }

// Packed filters: [register of filters][r][s][c][F, then b][lane].
inline int64_t grouped_forward_floats(const DenseForwardCall& call) {
  const Planes planes = planes_of(call);
  return planes.registers() * taps_of_lane(call.layer, planes) * 2 * Simd::kLanes;
}
inline int64_t grouped_forward_blocks(const DenseForwardCall& call) { return planes_of(call).registers(); }

inline bool slides(const DenseForwardCall& call) {
  const Layer& d = call.layer;
  return can_slide(d, planes_of(call)) && d.stride_h == d.stride_w && d.stride_h <= 2 && d.Q >= kTileColumns;
}
inline Cut cut_grouped_forward(const DenseForwardCall& call) {
  return cut_outputs(call.layer, planes_of(call), slides(call) ? kTileRows : 1);
}
inline int64_t grouped_forward_units(const DenseForwardCall& call) { return cut_grouped_forward(call).count(); }

inline void pack_grouped_forward(const DenseForwardCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const Planes planes = planes_of(call);
  float* to = packed + block * taps_of_lane(d, planes) * 2 * Simd::kLanes;
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t c = 0; c < d.C; ++c, to += 2 * Simd::kLanes)
        for (int64_t lane = 0; lane < Simd::kLanes; ++lane) {
          const int64_t o = block * Simd::kLanes + lane;
          const float w = o < planes.lanes() ? filter_element(call.w, d, call.w_order, o, {c, r, s}) : 0.0f;
          to[lane] = w;
          to[Simd::kLanes + lane] = call.offset_free ? std::abs(w) : 0.0f;
        }
}

// M neighbouring positions of a row, `step` floats apart in x, and one register of filters.
template <int M>
inline void grouped_tile(const int64_t* taps, int64_t num_taps, const float* w, const float* x, int64_t step, int lanes,
                         float* y, int64_t y_step) {
  Simd::Reg acc[M];
  for (int m = 0; m < M; ++m) acc[m] = Simd::zero();
  const auto add_tap = [&](int64_t k, const auto& load) {
    const float* at = x + taps[k];
    const Simd::Reg filter = Simd::load(w + k * 2 * Simd::kLanes), offset = Simd::load(w + (2 * k + 1) * Simd::kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[m] = Simd::add_similarity(acc[m], offset, load(at + m * step), filter);
  };
  if (lanes == Simd::kLanes)
    for (int64_t k = 0; k < num_taps; ++k) add_tap(k, [](const float* from) { return Simd::load(from); });
  else
    for (int64_t k = 0; k < num_taps; ++k)
      add_tap(k, [lanes](const float* from) { return Simd::load_first(from, lanes); });
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) store_lanes_of(y + m * y_step, acc[m], lanes);
}

// M rows of outputs at stride T of S x S filters, in the order (r, s) of the taps. Filters: [r][s][F, then b][lane].
template <int S, int T, int M, bool kIsInside>
[[gnu::noinline]] void sliding_forward_tile(const TilePixels<S + (M - 1) * T, S + (kTileColumns - 1) * T>& x,
                                            const float* w, int64_t o, int lanes, const TileResults& y) {
  constexpr int N = kTileColumns;
  Simd::Reg acc[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[m][n] = Simd::zero();
#pragma GCC unroll 16
  for (int i = 0; i < S + (M - 1) * T; ++i) {
    Simd::Reg pixels[S + (N - 1) * T];
    x.template load<kIsInside>(i, o, lanes, pixels);
    if (i >= S - T && x.ahead != 0) x.template fetch<N * T>(i, o);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const int r = i - m * T;
      if (r < 0 || r >= S) continue;
      const float* of_tap = w + r * S * 2 * Simd::kLanes;
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s, of_tap += 2 * Simd::kLanes) {
        const Simd::Reg filter = Simd::load(of_tap), offset = Simd::load(of_tap + Simd::kLanes);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) acc[m][n] = Simd::add_similarity(acc[m][n], offset, pixels[n * T + s], filter);
      }
    }
  }
  y.store(acc, o, lanes);
}

template <int S, int T>
inline void compute_sliding_forward(const DenseForwardCall& call, const float* packed, const Unit& cut,
                                    const PixelRows& x, float* y, bool is_in_place) {
  const Layer& d = call.layer;
  const int64_t C = x.channels, tap_floats = d.R * S * 2;
  const bool is_large = is_streamed(d.N * d.P * d.Q * C) && is_in_place && x.is_in_place;
  for (int64_t n = 0; n < cut.images(); ++n)
    for_row_pairs(cut.rows(), [&](auto height, int64_t p) {
      constexpr int M = decltype(height)::value;
      for_tile_columns(d.Q, [&](int64_t q) {
        const TilePixels<S + (M - 1) * T, S + (kTileColumns - 1) * T> pixels(
            x, n, (cut.row0 + p) * T - d.padding_h, q * T - d.padding_w, is_large ? M * T : 0);
        const TileResults to{y + ((n * cut.rows() + p) * d.Q + q) * C, d.Q * C, C, is_large && fills_lines(y, C)};
        const bool is_inside = pixels.is_inside();
        for (int64_t o = 0; o < C; o += Simd::kLanes) {
          const int lanes = lanes_left(C, o);
          if (is_inside && lanes == Simd::kLanes)
            sliding_forward_tile<S, T, M, true>(pixels, packed + o * tap_floats, o, lanes, to);
          else
            sliding_forward_tile<S, T, M, false>(pixels, packed + o * tap_floats, o, lanes, to);
        }
      });
    });
}

inline void slide_forward_unit(const DenseForwardCall& call, const float* packed, const Unit& cut, float* y,
                               bool is_in_place) {
  const Layer& d = call.layer;
  const ImageShape in{planes_of(call).lanes(), d.H, d.W};
  const PixelRows x = read_rows(call.x, in, cut, grouped_window(d, cut), grouped_scratch.image);
  for_filters(d, [&](auto columns, auto stride) {
    compute_sliding_forward<decltype(columns)::value, decltype(stride)::value>(call, packed, cut, x, y, is_in_place);
  });
}

inline void gather_forward_unit(const DenseForwardCall& call, const float* packed, const Unit& cut, float* y) {
  const Layer& d = call.layer;
  const Planes planes = planes_of(call);
  GroupedScratch& scratch = grouped_scratch;
  const int64_t lanes = planes.lanes(), num_taps = taps_of_lane(d, planes), step = d.stride_w * planes.pixel();
  const Buffer x = read_spread(call.x, planes, d.H, d.W, cut, grouped_window(d, cut), scratch);
  const int64_t* taps = list_taps(d, planes, x.row_pitch, scratch.taps);
  for (int64_t n = 0; n < cut.images(); ++n)
    for (int64_t p = 0; p < cut.rows(); ++p) {
      const float* row = x.data + n * x.image_pitch + p * d.stride_h * x.row_pitch;
      float* y_row = y + (n * cut.rows() + p) * d.Q * lanes;
      for_positions(d.Q, [&](auto width, int64_t q) {
        for (int64_t o = 0; o < lanes; o += Simd::kLanes)
          grouped_tile<decltype(width)::value>(taps, num_taps, packed + o * num_taps * 2, row + q * step + o, step,
                                               lanes_left(lanes, o), y_row + q * lanes + o, lanes);
      });
    }
}

inline void compute_grouped_forward_unit(const DenseForwardCall& call, const float* packed, const Unit& cut) {
  const Layer& d = call.layer;
  const int64_t lanes = planes_of(call).lanes();
  const bool is_in_place = call.y_layout == Layout::kNhwc || lanes == 1 || d.P * d.Q == 1;
  float* y = is_in_place ? call.y + (cut.n0 * d.P + cut.row0) * d.Q * lanes
                         : grouped_scratch.result.entries(cut.images() * cut.rows() * d.Q * lanes);
  if (slides(call))
    slide_forward_unit(call, packed, cut, y, is_in_place);
  else
    gather_forward_unit(call, packed, cut, y);
  if (!is_in_place) write_planes(y, {lanes, d.P, d.Q}, cut.n0, cut.n1, cut.row0, cut.row1, call.y);
}

inline void compute_grouped_forward(const DenseForwardCall& call, const float* packed, int64_t unit_begin,
                                    int64_t unit_end) {
  const Cut cut = cut_grouped_forward(call);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_grouped_forward_unit(call, packed, Unit(cut, i));
  Simd::finish_streams();
}

constexpr PassFunctions<DenseForwardCall> kGroupedForwardPass{
    grouped_forward_floats, grouped_forward_blocks, pack_grouped_forward, grouped_forward_units,
    compute_grouped_forward};

}  // namespace
}  // namespace addertrain::cpu
