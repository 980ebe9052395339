// The filter gradient of layers in many small groups, for one instruction set (a `Simd` is in scope):
//
//   dW[o,c,r,s] = sum_{n,p,q} dY[n,o,p,q] X[n, g C + c, p*u + r*e - a, q*v + s*f - a]
//
// with the filters of all groups along the registers. A unit sums its own outputs in float32; the units' sums are added
// in their order in float64, so that the number of threads changes no bit.
#pragma once

#include "csrc/cpu/grouped/sliding.h"

namespace addertrain::cpu {
namespace {

inline Planes planes_of(const DenseGradWeightCall& call) { return {call.groups, call.layer.C, call.layer.O}; }

inline int64_t grouped_weight_units(const DenseGradWeightCall& call) {
  return cut_outputs(call.layer, planes_of(call)).count();
}
// A unit's sums: [r][s][c][lane of all registers].
inline int64_t grouped_weight_floats(const DenseGradWeightCall& call) {
  const Layer& d = call.layer;
  return d.R * d.S * d.C * planes_of(call).registers() * Simd::kLanes;
}

// K taps of M neighbouring positions and one register of filters; sums of taps lie `pitch` floats apart.
template <int K, int M>
inline void add_products(const int64_t* taps, const float* x, int64_t step, const Simd::Reg (&g)[M], int lanes,
                         float* sums, int64_t pitch) {
  Simd::Reg acc[K];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) acc[k] = Simd::load(sums + k * pitch);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      acc[k] = Simd::multiply_add(g[m], load_lanes_of(x + taps[k] + m * step, lanes), acc[k]);
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) Simd::store(sums + k * pitch, acc[k]);
}

// M positions from `q` on, of which the first `seen` belong to the tile before and add nothing.
template <int M>
inline void grouped_weight_tile(const int64_t* taps, int64_t num_taps, const float* x, int64_t step, const float* dy,
                                int64_t dy_step, int64_t seen, int lanes, float* sums, int64_t pitch) {
  Simd::Reg g[M];
  for (int m = 0; m < M; ++m) g[m] = m < seen ? Simd::zero() : load_lanes_of(dy + m * dy_step, lanes);
  int64_t k = 0;
  for (; k + 3 <= num_taps; k += 3) add_products<3, M>(taps + k, x, step, g, lanes, sums + k * pitch, pitch);
  for (; k < num_taps; ++k) add_products<1, M>(taps + k, x, step, g, lanes, sums + k * pitch, pitch);
}

inline bool slides(const DenseGradWeightCall& call) {
  const Layer& d = call.layer;
  return can_slide(d, planes_of(call)) && d.stride_h == d.stride_w && d.stride_h <= 2 && d.Q >= kTileColumns;
}

// Neighbouring tiles of a row of outputs; one that reaches over an edge comes alone.
struct OutputStrip {
  const float* dy;
  int64_t ahead;  // floats to the outputs of a later row, or 0
  int64_t seen;   // outputs that belong to the tile before and add nothing
  int count;
};

// Rows [r0, r0 + kRows) of the filters over a strip. Sums of taps lie `pitch` floats apart and stay in registers.
template <int S, int T, int kRows, bool kIsInside>
[[gnu::noinline]] void sliding_weight_strip(const TilePixels<S, S + (kTileColumns - 1) * T>& x,
                                            const OutputStrip& outputs, int r0, int64_t o, int lanes, float* sums,
                                            int64_t pitch) {
  constexpr int N = kTileColumns, kColumns = S + (N - 1) * T;
  Simd::Reg acc[kRows][S];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) acc[r][s] = Simd::load(sums + ((r0 + r) * S + s) * pitch);
  const float* dy = outputs.dy + o;
  for (int t = 0; t < outputs.count; ++t, dy += N * x.step) {
    Simd::Reg g[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) g[n] = n < outputs.seen ? Simd::zero() : load_lanes_of(dy + n * x.step, lanes);
    if (r0 == 0 && outputs.ahead != 0) fetch_pixels<N>(dy + outputs.ahead, x.step);
    const int64_t at = t * N * T * x.step + o;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Simd::Reg pixels[kColumns];
      x.template load<kIsInside>(r0 + r, at, lanes, pixels);
      if (x.ahead != 0 && r0 + r >= S - T) x.template fetch<N * T>(r0 + r, at);
#pragma GCC unroll 32
      for (int j = 0; j < kColumns; ++j)  // each sum takes its outputs in their order
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s)
          if (j >= s && (j - s) % T == 0 && (j - s) / T < N)
            acc[r][s] = Simd::multiply_add(g[(j - s) / T], pixels[j], acc[r][s]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) Simd::store(sums + ((r0 + r) * S + s) * pitch, acc[r][s]);
}

// All rows of the filters, as many at a time as leave registers for pixels and outputs.
template <int S, int T, bool kIsInside>
inline void add_sliding_strip(const TilePixels<S, S + (kTileColumns - 1) * T>& x, const OutputStrip& outputs,
                              int64_t o, int lanes, float* sums, int64_t pitch) {
  constexpr int kRows = S == 3 ? 3 : 2;
  int r = 0;
  for (; r + kRows <= S; r += kRows)
    sliding_weight_strip<S, T, kRows, kIsInside>(x, outputs, r, o, lanes, sums, pitch);
  if constexpr (S % kRows != 0)
    sliding_weight_strip<S, T, S % kRows, kIsInside>(x, outputs, r, o, lanes, sums, pitch);
}

// One row of outputs.
template <int S, int T>
inline void add_sliding_row(const Layer& d, const PixelRows& x, int64_t n, int64_t p, const float* dy,
                            int64_t rows_ahead, float* sums, int64_t pitch) {
  constexpr int N = kTileColumns, kColumns = S + (N - 1) * T, kMostTiles = 4;
  const int64_t C = x.channels;
  OutputStrip strip{dy, rows_ahead == 0 ? 0 : d.Q * C, 0, 1};
  for (int64_t q = 0; q < d.Q; q += strip.count * N) {
    const int64_t first = std::min(q, d.Q - N), column = first * T - d.padding_w;
    const TilePixels<S, kColumns> pixels(x, n, p * T - d.padding_h, column, rows_ahead);
    const bool is_inside = pixels.is_inside();
    const int64_t columns_left = x.window.column0 + x.window.columns - column - kColumns;
    strip.dy = dy + first * C, strip.seen = q - first, strip.count = 1;
    if (is_inside)
      while (strip.count < kMostTiles && first + (strip.count + 1) * N <= d.Q && strip.count * N * T <= columns_left)
        ++strip.count;
    for (int64_t o = 0; o < C; o += Simd::kLanes) {
      const int lanes = lanes_left(C, o);
      if (is_inside && lanes == Simd::kLanes)
        add_sliding_strip<S, T, true>(pixels, strip, o, lanes, sums + o, pitch);
      else
        add_sliding_strip<S, T, false>(pixels, strip, o, lanes, sums + o, pitch);
    }
  }
}

template <int S, int T>
inline void compute_sliding_weight(const Layer& d, const Unit& cut, const PixelRows& x, const Buffer& dy, float* sums,
                                   int64_t pitch) {
  const int64_t rows_ahead = x.is_in_place && is_streamed(d.N * d.H * d.W * x.channels) ? T : 0;
  for (int64_t n = 0; n < cut.images(); ++n)
    for (int64_t p = 0; p < cut.rows(); ++p)
      add_sliding_row<S, T>(d, x, n, cut.row0 + p, dy.data + n * dy.image_pitch + p * dy.row_pitch, rows_ahead, sums,
                            pitch);
}

inline void compute_grouped_weight_unit(const DenseGradWeightCall& call, const Unit& cut, float* sums) {
  const Layer& d = call.layer;
  const Planes planes = planes_of(call);
  GroupedScratch& scratch = grouped_scratch;
  const int64_t lanes = planes.lanes(), num_taps = d.R * d.S * planes.of_group, step = d.stride_w * planes.pixel();
  const Buffer dy = read_window(call.dy, {lanes, d.P, d.Q}, cut.n0, cut.n1, {cut.row0, cut.rows(), 0, d.Q}, scratch.x);
  const int64_t pitch = planes.registers() * Simd::kLanes;
  std::memset(sums, 0, sizeof(float) * num_taps * pitch);
  if (slides(call)) {
    const PixelRows x = read_rows(call.x, {lanes, d.H, d.W}, cut, grouped_window(d, cut), scratch.image);
    for_filters(d, [&](auto columns, auto stride) {
      compute_sliding_weight<decltype(columns)::value, decltype(stride)::value>(d, cut, x, dy, sums, pitch);
    });
    return;
  }
  const Buffer x = read_spread(call.x, planes, d.H, d.W, cut, grouped_window(d, cut), scratch);
  const int64_t* taps = list_taps(d, planes, x.row_pitch, scratch.taps);
  for (int64_t n = 0; n < cut.images(); ++n)
    for (int64_t p = 0; p < cut.rows(); ++p) {
      const float* row = x.data + n * x.image_pitch + p * d.stride_h * x.row_pitch;
      const float* dy_row = dy.data + n * dy.image_pitch + p * dy.row_pitch;
      int64_t end = 0;  // of the positions that have been added
      for_positions(d.Q, [&](auto width, int64_t q) {
        for (int64_t o = 0; o < lanes; o += Simd::kLanes)
          grouped_weight_tile<decltype(width)::value>(taps, num_taps, row + q * step + o, step, dy_row + q * lanes + o,
                                                      lanes, end - q, lanes_left(lanes, o), sums + o, pitch);
        end = q + decltype(width)::value;
      });
    }
}

inline void compute_grouped_weight(const DenseGradWeightCall& call, int64_t unit_begin, int64_t unit_end,
                                   float* sums) {
  const Cut cut = cut_outputs(call.layer, planes_of(call));
  for (int64_t i = unit_begin; i < unit_end; ++i)
    compute_grouped_weight_unit(call, Unit(cut, i), sums + i * grouped_weight_floats(call));
}

// dw_ocrs of filters [begin, end), contiguous.
inline void merge_grouped_weight(const DenseGradWeightCall& call, const float* sums, int64_t begin, int64_t end,
                                 float* dw) {
  const Layer& d = call.layer;
  const int64_t pitch = planes_of(call).registers() * Simd::kLanes, units = grouped_weight_units(call);
  const int64_t unit_floats = grouped_weight_floats(call), taps = d.R * d.S;
  for (int64_t o = begin; o < end; ++o)
    for (int64_t c = 0; c < d.C; ++c)
      for (int64_t tap = 0; tap < taps; ++tap) {
        double sum = 0.0;
        const float* of_unit = sums + (tap * d.C + c) * pitch + o;
        for (int64_t i = 0; i < units; ++i) sum += of_unit[i * unit_floats];
        dw[(o * d.C + c) * taps + tap] = static_cast<float>(sum);
      }
}

constexpr GroupedGradWeight kGroupedGradWeight{grouped_weight_units, grouped_weight_floats, compute_grouped_weight,
                                               merge_grouped_weight};

}  // namespace
}  // namespace addertrain::cpu
