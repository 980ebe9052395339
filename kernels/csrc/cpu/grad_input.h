// The input gradient for one instruction set (a `Simd` is in scope).
//
//   dX[n,c,h,w] = sum_{o,r,s} dY * HT(w - x),  HT(d) = min(max(d, -1), 1)                              (Eq. 6, 7)
//
// A gather: every input position sums the outputs that saw it. Channels lie along the registers, x and the sums stay in
// registers, dY is broadcast. A stride u splits the input into u*u classes of positions that see the same taps, each a
// dense problem of its own: nothing is multiplied by zero, no atomics.
#pragma once

#include <cmath>
#include <limits>

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/units.h"

namespace addertrain::cpu {
namespace {

// Packed filters: [block of channels][r][s][o][lane]; behind them per channel 0, or NaN where a filter has a NaN: the
// clip would drop it.
struct PackedGradInput {
  int64_t K, lanes;
  float* filters;
  float* poison;

  PackedGradInput(const Layer& d, float* packed)
      : K(d.O * d.R * d.S), lanes(ceil_div(d.C, Simd::kLanes) * Simd::kLanes) {
    filters = packed;
    poison = filters + K * lanes;
  }
};

inline void pack_grad_input(const GradInputCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const ImageStrides& ws = call.w_strides;
  const PackedGradInput to(d, packed);
  const int64_t c0 = block * Simd::kLanes;
  float* row = to.filters + c0 * to.K;
  float* poison = to.poison + c0;
  for (int lane = 0; lane < Simd::kLanes; ++lane) poison[lane] = 0.0f;
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t o = 0; o < d.O; ++o, row += Simd::kLanes)
        for (int64_t lane = 0; lane < Simd::kLanes; ++lane) {
          const int64_t c = c0 + lane;
          const float w = c < d.C ? call.w[o * ws.n + c * ws.c + r * ws.h + s * ws.w] : 0.0f;
          row[lane] = w;
          if (std::isnan(w)) poison[lane] = std::numeric_limits<float>::quiet_NaN();
        }
}

// A tap of a class: where its outputs lie from a position's base, and where its filters lie in the packed block.
struct Tap {
  int64_t dy, filters;
};

struct GradTile {
  const float* filters;
  const float* poison;
  const Tap* taps;
  int64_t num_taps, O;
  int channels;  // of the block, at most a register's
};

// M positions anywhere, one register of channels: acc[m][c] += dy[m][k] * HT(w[k][c] - x[m][c]).
template <int M>
void grad_tile(const GradTile& t, const float* const* dy, const float* const* x, float* const* dx) {
  Simd::Reg acc[M], at_x[M];
  for (int m = 0; m < M; ++m) {
    acc[m] = Simd::zero();
    at_x[m] = t.channels == Simd::kLanes ? Simd::load(x[m]) : Simd::load_first(x[m], t.channels);
  }
  for (int64_t tap = 0; tap < t.num_taps; ++tap) {
    const float* w = t.filters + t.taps[tap].filters;
    const float* at[M];
    for (int m = 0; m < M; ++m) at[m] = dy[m] + t.taps[tap].dy;
    for (int64_t o = 0; o < t.O; ++o, w += Simd::kLanes) {
      const Simd::Reg filter = Simd::load(w);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
        acc[m] = Simd::add_clipped(acc[m], Simd::broadcast(at[m][o]), filter, at_x[m], m % 2 == 1);
    }
  }
  const Simd::Reg poison = Simd::load(t.poison);
  for (int m = 0; m < M; ++m) {
    const Simd::Reg value = Simd::add(Simd::keep_nan(acc[m], at_x[m]), poison);
    if (t.channels == Simd::kLanes)
      Simd::store(dx[m], value);
    else
      Simd::store_first(dx[m], value, t.channels);
  }
}

}  // namespace
}  // namespace addertrain::cpu
