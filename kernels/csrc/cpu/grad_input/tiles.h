// The input gradient for one instruction set (a `Simd` is in scope).
//
//   dX[n,c,h,w] = sum_{o,r,s} dY * HT(w - x),  HT(d) = min(max(d, -1), 1)                              (Eq. 6, 7)
//
// A gather: every input position sums the outputs that saw it. Channels lie along the registers, x and the sums stay in
// registers, dY is broadcast. A stride u splits the input into u*u phases of positions that see the same taps, each a
// dense problem of its own. There are no atomics.
#pragma once

#include <cmath>

#include "csrc/cpu/grad_input/positions.h"
#include "csrc/cpu/movement/pack.h"

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

inline void pack_grad_input(const DenseGradInputCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const PackedGradInput to(d, packed);
  const int64_t c0 = block * Simd::kLanes, taps = d.R * d.S;
  const int channels = lanes_left(d.C, c0);
  float* rows = to.filters + c0 * to.K;
  Simd::Reg poison = Simd::zero();
  for (int64_t o = 0; o < d.O; ++o) {
    const auto put = [&](int64_t tap, Simd::Reg w) {
      Simd::store(rows + (tap * d.O + o) * Simd::kLanes, w);
      poison = Simd::keep_nan(poison, w);
    };
    const float* filter = call.w + o * taps * d.C;
    if (call.w_order == FilterOrder::kChannelsOutermost)
      for_transposed(filter + c0 * taps, taps, channels, taps, put);
    else
      for (int64_t tap = 0; tap < taps; ++tap) put(tap, Simd::load_first(filter + tap * d.C + c0, channels));
  }
  Simd::store(to.poison + c0, poison);
}

// What a tile needs to know of the positions it may meet: those of one phase of the stride.
struct GradTile {
  const float* filters;  // packed block
  const float* poison;
  const float* zeros;    // a row of O zeros: the output that a position lacks
  const int64_t* down;   // per filter row: from a position's base to the output it reads
  const int64_t* across; // per filter column
  int64_t R, S, O;
  int channels;          // of the block, at most a register's
};

// The taps of a tile's M positions taken together.
template <int M>
struct TileTaps {
  Taps any{0, 0};
  bool is_mixed = false;  // the positions do not all see the same

  explicit TileTaps(const InputPosition* positions) {
    Taps all = any = positions[0].taps;
#pragma GCC unroll 32
    for (int m = 1; m < M; ++m) {
      any = {any.rows | positions[m].taps.rows, any.columns | positions[m].taps.columns};
      all = {all.rows & positions[m].taps.rows, all.columns & positions[m].taps.columns};
    }
    is_mixed = !(any == all);
  }
};

// M positions anywhere, one register of channels: acc[m][c] += dy[m][k] * HT(w[k][c] - x[m][c]). A tap that no
// position sees is left out; one that only some see reads zeros for the others.
template <int M>
void grad_tile(const GradTile& t, const InputPosition* positions, const float* x, float* dx) {
  Simd::Reg acc[M], at_x[M];
  const TileTaps<M> taps(positions);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    acc[m] = Simd::zero();
    const float* pixel = x + positions[m].pixel;
    at_x[m] = t.channels == Simd::kLanes ? Simd::load(pixel) : Simd::load_first(pixel, t.channels);
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
          acc[m] = Simd::add_clipped(acc[m], Simd::broadcast_at(at[m] + o), filter, at_x[m], m % 2 == 1);
      }
    }
  const Simd::Reg poison = Simd::load(t.poison);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    const Simd::Reg value = Simd::add(Simd::keep_nan(acc[m], at_x[m]), poison);
    if (t.channels == Simd::kLanes)
      Simd::store(dx + positions[m].pixel, value);
    else
      Simd::store_first(dx + positions[m].pixel, value, t.channels);
  }
}

}  // namespace
}  // namespace addertrain::cpu
