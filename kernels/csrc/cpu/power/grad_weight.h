// The filter gradient with the p-th power of the distance, for one instruction set (a `Simd` is in scope).
//
//   dF[o,c,r,s] = sum_{n,p,q} dY * p |X - F|^(p-1) sgn(X - F)
//
// A power does not separate into X and F, so this is no convolution's gradient. Filters lie along the registers, dY is
// loaded, the input under a few taps is broadcast, and the taps' sums stay in registers over the positions of a unit.
// A call is divided by its results, into parts of some filters and taps, each of which goes through all of the batch. So it
// needs no memory but that of the results, and their sums have one order for any number of threads.
#pragma once

#include "csrc/cpu/forward/units.h"
#include "csrc/cpu/power/element.h"

namespace addertrain::cpu {
namespace {

struct PowerWeightScratch {
  Scratch x, dy, sums;
  PointerTable positions;
  OffsetTable taps;
};
thread_local PowerWeightScratch power_weight_scratch;

// A register of filters, from o0 on, and the taps [begin, end): enough that bringing the input near costs little.
struct PowerWeightPart {
  int64_t o0, begin, end;

  PowerWeightPart(const Layer& d, int64_t index) {
    const int64_t K = d.C * d.R * d.S, taps = taps_of(d), parts = ceil_div(K, taps);
    o0 = index / parts * Simd::kLanes;
    begin = index % parts * taps;
    end = std::min(K, begin + taps);
  }
  static int64_t taps_of(const Layer& d) {
    constexpr int64_t kFewestTaps = 64;
    return std::min(d.C * d.R * d.S, std::max(kFewestTaps, d.C));
  }
  static int64_t count(const Layer& d) { return ceil_div(d.O, Simd::kLanes) * ceil_div(d.C * d.R * d.S, taps_of(d)); }
};

// Packed filters: [register of filters][tap][lane].
inline int64_t power_weight_floats(const PowerGradWeightCall& call) {
  const Layer& d = call.layer;
  return ceil_div(d.O, Simd::kLanes) * d.C * d.R * d.S * Simd::kLanes;
}
inline int64_t power_weight_blocks(const PowerGradWeightCall& call) { return ceil_div(call.layer.O, Simd::kLanes); }
inline int64_t power_weight_parts(const PowerGradWeightCall& call) { return PowerWeightPart::count(call.layer); }

inline void pack_power_weight(const PowerGradWeightCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  float* to = packed + block * d.C * d.R * d.S * Simd::kLanes;
  for_filter_taps(d, call.w, call.w_order, block * Simd::kLanes,
                  [&](int64_t k, Simd::Reg w) { Simd::store(to + k * Simd::kLanes, w); });
}

// M taps and one register of filters: sums[m][o] += sum over positions of dy[o] * slope(x[tap m] - w[m][o]).
template <int M, bool kChecked>
void power_weight_tile(const PowerFit& fit, const int64_t* taps, const float* filters, const float* const* positions,
                       int64_t count, const float* dy, int64_t dy_pitch, int lanes, float* sums) {
  Simd::Reg acc[M], w[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) acc[m] = Simd::zero(), w[m] = Simd::load(filters + m * Simd::kLanes);
  for (int64_t i = 0; i < count; ++i, dy += dy_pitch) {
    const Simd::Reg g = lanes == Simd::kLanes ? Simd::load(dy) : Simd::load_first(dy, lanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      acc[m] = Simd::multiply_add(g, slope_of<kChecked>(fit, Simd::broadcast_at(positions[i] + taps[m]), w[m]), acc[m]);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
    Simd::store(sums + m * Simd::kLanes, Simd::add(Simd::load(sums + m * Simd::kLanes), acc[m]));
}

template <bool kChecked>
inline void add_power_unit(const PowerGradWeightCall& call, const float* filters, const PowerWeightPart& part,
                           const int64_t* taps, const float* const* positions, int64_t count, const float* dy,
                           float* sums) {
  constexpr int M = Simd::kPowerRows;
  const int64_t O = call.layer.O;
  const int lanes = lanes_left(O, part.o0);
  int64_t k = part.begin;
  for (; k + M <= part.end; k += M)
    power_weight_tile<M, kChecked>(*call.fit, taps + k, filters + k * Simd::kLanes, positions, count, dy + part.o0, O,
                                   lanes, sums + (k - part.begin) * Simd::kLanes);
  for (; k < part.end; ++k)
    power_weight_tile<1, kChecked>(*call.fit, taps + k, filters + k * Simd::kLanes, positions, count, dy + part.o0, O,
                                   lanes, sums + (k - part.begin) * Simd::kLanes);
}

// p times the sums, into the places of a part's filters and taps.
inline void write_power_part(const PowerGradWeightCall& call, const PowerWeightPart& part, const float* sums) {
  const Layer& d = call.layer;
  const int filters = lanes_left(d.O, part.o0);
  for (int64_t k = part.begin; k < part.end; ++k, sums += Simd::kLanes) {
    const FilterTap tap{k % d.C, k / d.C / d.S, k / d.C % d.S};
    float* to = call.dw + part.o0 * d.C * d.R * d.S + offset_of(tap, d, call.w_order);
    for (int lane = 0; lane < filters; ++lane) to[lane * d.C * d.R * d.S] = call.fit->p * sums[lane];
  }
}

inline void compute_power_part(const PowerGradWeightCall& call, const float* packed, const PowerWeightPart& part) {
  const Layer& d = call.layer;
  PowerWeightScratch& scratch = power_weight_scratch;
  const Cut cut = cut_forward(d);
  const float* filters = packed + part.o0 * d.C * d.R * d.S;
  const int64_t num_floats = (part.end - part.begin) * Simd::kLanes;
  const bool is_finite = are_finite(filters + part.begin * Simd::kLanes, num_floats);
  float* sums = scratch.sums.entries(num_floats);
  std::memset(sums, 0, sizeof(float) * num_floats);
  for (int64_t i = 0; i < cut.count(); ++i) {
    const Unit unit(cut, i);
    const Window window = window_of(d, unit);
    const Buffer x = read_window(call.x, {d.C, d.H, d.W}, unit.n0, unit.n1, window, scratch.x);
    const Buffer dy = read_window(call.dy, {d.O, d.P, d.Q}, unit.n0, unit.n1, {unit.row0, unit.rows(), 0, d.Q},
                                  scratch.dy);
    const float* const* positions =
        list_positions(d, {x, unit.images(), unit.rows(), nullptr, nullptr, nullptr}, scratch.positions);
    const int64_t* taps = list_tap_offsets(d, x.row_pitch, scratch.taps);
    bool is_checked = !is_finite;
    for (int64_t n = 0; n < unit.images() && !is_checked; ++n)
      for (int64_t row = 0; row < window.rows && !is_checked; ++row)
        is_checked = !are_finite(x.data + n * x.image_pitch + row * x.row_pitch, window.columns * d.C);
    const auto add = is_checked ? add_power_unit<true> : add_power_unit<false>;
    add(call, filters, part, taps, positions, unit.images() * unit.rows() * d.Q, dy.data, sums);
  }
  write_power_part(call, part, sums);
}

inline void compute_power_weight(const PowerGradWeightCall& call, const float* packed, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) compute_power_part(call, packed, PowerWeightPart(call.layer, i));
}

constexpr PassFunctions<PowerGradWeightCall> kPowerGradWeightPass{
    power_weight_floats, power_weight_blocks, pack_power_weight, power_weight_parts, compute_power_weight};

}  // namespace
}  // namespace addertrain::cpu
