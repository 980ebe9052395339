// The input gradient with the p-th power of the distance, for one instruction set (a `Simd` is in scope).
//
//   dX[n,c,h,w] = sum_{o,r,s} dY * p |w - x|^(p-1) sgn(w - x)
//
// The walk is that of the ordinary input gradient (grad_input/tiles.h): channels along the registers, dY broadcast, one
// phase of the stride after the other. Only the element differs.
#pragma once

#include "csrc/cpu/grad_input/units.h"
#include "csrc/cpu/power/element.h"

namespace addertrain::cpu {
namespace {

struct PowerGradScratch {
  Scratch dy, x, dx, zeros;
  PhaseScratch phase;
};
thread_local PowerGradScratch power_grad_scratch;

inline int64_t power_grad_floats(const PowerGradInputCall& call) {
  const PackedGradInput packed(call.of.layer, nullptr);
  return (packed.K + 1) * packed.lanes;
}
inline int64_t power_grad_blocks(const PowerGradInputCall& call) { return ceil_div(call.of.layer.C, Simd::kLanes); }
inline int64_t power_grad_units(const PowerGradInputCall& call) { return cut_grad_input(call.of.layer).count(); }

// Packs as the ordinary pass does, but the poison is NaN for an infinity as well: here it only tells which elements to check.
inline void pack_power_grad(const PowerGradInputCall& call, int64_t block, float* packed) {
  pack_grad_input(call.of, block, packed);
  const PackedGradInput to(call.of.layer, packed);
  const float* rows = to.filters + block * Simd::kLanes * to.K;
  Simd::Reg poison = Simd::zero();
  for (int64_t k = 0; k < to.K; ++k)
    poison = Simd::multiply_add(Simd::load(rows + k * Simd::kLanes), Simd::zero(), poison);
  Simd::store(to.poison + block * Simd::kLanes, poison);
}

// M positions and one register of channels: acc[m][c] += dy[m][k] * slope(w[k][c] - x[m][c]); taps as in grad_tile.
template <int M, bool kChecked>
void power_grad_tile(const PowerFit& fit, const GradTile& t, const InputPosition* positions, const float* x, float* dx) {
  Simd::Reg acc[M], at_x[M];
  const TileTaps<M> taps(positions);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    acc[m] = Simd::zero();
    at_x[m] = Simd::load_first(x + positions[m].pixel, t.channels);
  }
  for (int64_t r = 0; r < t.R; ++r)
    for (int64_t s = 0; s < t.S; ++s) {
      if (!taps.any.has(r, s)) continue;
      const float* w = t.filters + (r * t.S + s) * t.O * Simd::kLanes;
      const int64_t offset = t.down[r] + t.across[s];
      const float* at[M];
      for (int m = 0; m < M; ++m)
        at[m] = taps.is_mixed && !positions[m].taps.has(r, s) ? t.zeros : positions[m].dy + offset;
      for (int64_t o = 0; o < t.O; ++o, w += Simd::kLanes) {
        const Simd::Reg filter = Simd::load(w);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
          acc[m] = Simd::multiply_add(Simd::broadcast_at(at[m] + o), slope_of<kChecked>(fit, filter, at_x[m]), acc[m]);
      }
    }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
    Simd::store_first(dx + positions[m].pixel, Simd::scale_add(fit.p, acc[m], Simd::zero()), t.channels);
}

inline void compute_power_phase(const PowerGradInputCall& call, const float* packed, const PhasePositions& phase,
                                GradTile tile, bool is_checked, const float* x, float* dx) {
  constexpr int M = Simd::kPowerRows;
  const Layer& d = call.of.layer;
  const PackedGradInput filters(d, const_cast<float*>(packed));
  for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
    tile.filters = filters.filters + c0 * filters.K;
    tile.channels = lanes_left(d.C, c0);
    for_tiles(phase.count, M, [&](int64_t at) {
      if (is_checked)
        power_grad_tile<M, true>(*call.fit, tile, phase.positions + at, x + c0, dx + c0);
      else
        power_grad_tile<M, false>(*call.fit, tile, phase.positions + at, x + c0, dx + c0);
    });
  }
}

inline void compute_power_grad_unit(const PowerGradInputCall& call, const float* packed, const Unit& cut,
                                    bool are_filters_finite) {
  const Layer& d = call.of.layer;
  PowerGradScratch& scratch = power_grad_scratch;
  const ImageShape in{d.C, d.H, d.W}, out{d.O, d.P, d.Q};
  const Window window = dy_window(d, cut);
  const Buffer dy = read_window(call.of.dy, out, cut.n0, cut.n1, window, scratch.dy);
  const Buffer x = read_window(call.of.x, in, cut.n0, cut.n1, {cut.row0, cut.rows(), 0, d.W}, scratch.x);
  const bool is_in_place = call.of.x.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  const int64_t floats = cut.images() * cut.rows() * d.W * d.C;
  const bool is_checked = !are_filters_finite || !are_finite(x.data, floats);
  float* dx = is_in_place ? call.of.dx + (cut.n0 * d.H + cut.row0) * d.W * d.C : scratch.dx.entries(floats);
  float* zeros = scratch.zeros.entries(d.O);
  std::memset(zeros, 0, sizeof(float) * d.O);
  for_phases(d, GradUnit{cut, window.row0, dy, x.data, d.W}, scratch.phase, [&](const PhasePositions& phase) {
    const GradTile tile{nullptr, nullptr, zeros, phase.down, phase.across, d.R, d.S, d.O, 0};
    compute_power_phase(call, packed, phase, tile, is_checked, x.data, dx);
  });
  if (!is_in_place) write_planes(dx, in, cut.n0, cut.n1, cut.row0, cut.row1, call.of.dx);
}

inline void compute_power_grad(const PowerGradInputCall& call, const float* packed, int64_t unit_begin,
                               int64_t unit_end) {
  const Cut cut = cut_grad_input(call.of.layer);
  const PackedGradInput filters(call.of.layer, const_cast<float*>(packed));
  const bool is_finite = are_finite(filters.poison, filters.lanes);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_power_grad_unit(call, packed, Unit(cut, i), is_finite);
}

constexpr PassFunctions<PowerGradInputCall> kPowerGradInputPass{power_grad_floats, power_grad_blocks, pack_power_grad,
                                                                power_grad_units, compute_power_grad};

}  // namespace
}  // namespace addertrain::cpu
