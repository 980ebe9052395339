// The response with the p-th power of the distance, for one instruction set (a `Simd` is in scope).
//
//   Y = sum_k (b - |x - w|^p),   b = |w|^p for the offset-free response, else 0
//
// Filters lie along the registers, positions are broadcast, nothing is unfolded (as in forward/tiles.h). Each term is
// rounded by itself, and b by the same instructions as the power, so that x = 0 adds exactly 0 to an offset-free
// response.
#pragma once

#include "csrc/cpu/forward/units.h"
#include "csrc/cpu/power/element.h"

namespace addertrain::cpu {
namespace {

struct PowerForwardScratch {
  Scratch window, response;
  PointerTable positions;
  OffsetTable taps;
};
thread_local PowerForwardScratch power_forward_scratch;

// Packed filters: [register of filters][tap][w, then -b][lane].
inline int64_t power_forward_floats(const PowerForwardCall& call) {
  const Layer& d = call.of.layer;
  return ceil_div(d.O, Simd::kLanes) * d.C * d.R * d.S * 2 * Simd::kLanes;
}
inline int64_t power_forward_blocks(const PowerForwardCall& call) { return ceil_div(call.of.layer.O, Simd::kLanes); }
inline int64_t power_forward_units(const PowerForwardCall& call) { return cut_forward(call.of.layer).count(); }

inline void pack_power_forward(const PowerForwardCall& call, int64_t block, float* packed) {
  const Layer& d = call.of.layer;
  float* to = packed + block * d.C * d.R * d.S * 2 * Simd::kLanes;
  for_filter_taps(d, call.of.w, call.of.w_order, block * Simd::kLanes, [&](int64_t k, Simd::Reg w) {
    Simd::Reg minus_b = Simd::zero();
    if (call.of.offset_free)
      minus_b = Simd::scale_add(-1.0f, power_of_distance(*call.fit, Simd::zero(), w), Simd::zero());
    Simd::store(to + k * 2 * Simd::kLanes, w);
    Simd::store(to + (k * 2 + 1) * Simd::kLanes, minus_b);
  });
}

// M positions and one register of filters: y[m][o] = -sum_k (|x[m][k] - w[k][o]|^p - b[k][o]).
template <int M>
void power_tile(const PowerFit& fit, const int64_t* taps, int64_t num_taps, const float* filters, const float* const* x,
                int lanes, float* const* y) {
  Simd::Reg acc[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) acc[m] = Simd::zero();
  for (int64_t k = 0; k < num_taps; ++k, filters += 2 * Simd::kLanes) {
    const Simd::Reg w = Simd::load(filters), minus_b = Simd::load(filters + Simd::kLanes);
    const int64_t tap = taps[k];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Simd::Reg term = power_of_distance(fit, Simd::broadcast_at(x[m] + tap), w);
      acc[m] = Simd::add(acc[m], Simd::add(term, minus_b));
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    const Simd::Reg value = Simd::scale_add(-1.0f, acc[m], Simd::zero());
    if (lanes == Simd::kLanes)
      Simd::store(y[m], value);
    else
      Simd::store_first(y[m], value, lanes);
  }
}

inline void compute_power_forward_unit(const PowerForwardCall& call, const float* packed, const Unit& cut) {
  constexpr int M = Simd::kPowerRows;
  const Layer& d = call.of.layer;
  PowerForwardScratch& scratch = power_forward_scratch;
  const int64_t count = cut.images() * cut.rows() * d.Q, num_taps = d.C * d.R * d.S;
  const bool is_in_place = call.of.y_layout == Layout::kNhwc || d.O == 1 || d.P * d.Q == 1;
  float* y = is_in_place ? call.of.y + (cut.n0 * d.P + cut.row0) * d.Q * d.O : scratch.response.entries(count * d.O);
  const Buffer x = read_window(call.of.x, {d.C, d.H, d.W}, cut.n0, cut.n1, window_of(d, cut), scratch.window);
  const float* const* positions =
      list_positions(d, {x, cut.images(), cut.rows(), nullptr, nullptr, y}, scratch.positions);
  const int64_t* taps = list_tap_offsets(d, x.row_pitch, scratch.taps);
  for (int64_t o = 0; o < d.O; o += Simd::kLanes)
    for (int64_t at = 0; at < count; at += M) {
      float* to[M];  // the last tile is filled up with the last position
      for (int m = 0; m < M; ++m) to[m] = y + std::min(at + m, count - 1) * d.O + o;
      power_tile<M>(*call.fit, taps, num_taps, packed + o * num_taps * 2, positions + at, lanes_left(d.O, o), to);
    }
  if (!is_in_place) write_planes(y, {d.O, d.P, d.Q}, cut.n0, cut.n1, cut.row0, cut.row1, call.of.y);
}

inline void compute_power_forward(const PowerForwardCall& call, const float* packed, int64_t unit_begin,
                                  int64_t unit_end) {
  const Cut cut = cut_forward(call.of.layer);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_power_forward_unit(call, packed, Unit(cut, i));
}

constexpr PassFunctions<PowerForwardCall> kPowerForwardPass{
    power_forward_floats, power_forward_blocks, pack_power_forward, power_forward_units, compute_power_forward};

}  // namespace
}  // namespace addertrain::cpu
