// The input gradient of layers with few channels, for one instruction set (a `Simd` is in scope).
//
// One to eight channels would leave most of a register empty. Here the filters lie along the registers instead, each
// lane sums the outputs of its own filters, and the lanes are added up once, at the end of a tile.
#pragma once

#include "csrc/cpu/grad_input/tiles.h"

namespace addertrain::cpu {
namespace {

inline bool is_thin(const Layer& d) { return d.C <= kThinChannels; }

// Packed filters: [r][s][register of filters][c][lane], zeros behind the last filter; then the poison of each channel.
struct PackedThin {
  int64_t registers, tap_floats;
  float* filters;
  float* poison;

  PackedThin(const Layer& d, float* packed) : registers(ceil_div(d.O, Simd::kLanes)) {
    tap_floats = registers * d.C * Simd::kLanes;
    filters = packed;
    poison = filters + d.R * d.S * tap_floats;
  }
  static int64_t floats(const Layer& d) { return d.R * d.S * PackedThin(d, nullptr).tap_floats + kThinChannels; }
};

inline void pack_thin(const DenseGradInputCall& call, float* packed) {
  const Layer& d = call.layer;
  const PackedThin to(d, packed);
  for (int64_t c = 0; c < d.C; ++c) to.poison[c] = 0.0f;
  float* row = to.filters;
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t o0 = 0; o0 < to.registers * Simd::kLanes; o0 += Simd::kLanes)
        for (int64_t c = 0; c < d.C; ++c, row += Simd::kLanes)
          for (int64_t lane = 0; lane < Simd::kLanes; ++lane) {
            const int64_t o = o0 + lane;
            row[lane] = o < d.O ? call.w[o * d.C * d.R * d.S + offset_of({c, r, s}, d, call.w_order)] : 0.0f;
            if (std::isnan(row[lane])) to.poison[c] = row[lane];
          }
}

// Sums of a tile: as many as stay in registers; x is read from memory, which the loop has time for.
constexpr int kThinSums = 2 * Simd::kGradRows;
template <int C>
constexpr int kThinRows = kThinSums / C > 0 ? kThinSums / C : 1;

// Adds up the lanes of `count` registers into `to`.
template <int Count>
inline void add_lanes(const Simd::Reg (&acc)[Count], float* to) {
  for (int first = 0; first < Count; first += Simd::kLanes) {
    Simd::Reg group[Simd::kLanes];
    for (int i = 0; i < Simd::kLanes; ++i) group[i] = first + i < Count ? acc[first + i] : Simd::zero();
    const int left = Count - first;
    Simd::store_first(to + first, Simd::sums(group), left < Simd::kLanes ? left : Simd::kLanes);
  }
}

// M positions, C channels: acc[m][c] += dy[m][o] * HT(w[o][c] - x[m][c]), lane by lane over o.
template <int C>
void thin_tile(const GradTile& t, const InputPosition* positions, const float* x, float* dx) {
  constexpr int M = kThinRows<C>;
  const int64_t registers = ceil_div(t.O, Simd::kLanes);
  Simd::Reg acc[M * C], at_x[M * C];
  for (int m = 0; m < M; ++m)
    for (int c = 0; c < C; ++c) {
      acc[m * C + c] = Simd::zero();
      at_x[m * C + c] = Simd::broadcast(x[positions[m].pixel + c]);
    }
  const TileTaps<M> taps(positions);
  for (int64_t r = 0; r < t.R; ++r)
    for (int64_t s = 0; s < t.S; ++s) {
      if (!taps.any.has(r, s)) continue;
      const float* w = t.filters + (r * t.S + s) * registers * C * Simd::kLanes;
      const int64_t offset = t.down[r] + t.across[s];
      const float* at[M];
      for (int m = 0; m < M; ++m)
        at[m] = taps.is_mixed && !positions[m].taps.has(r, s) ? t.zeros : positions[m].dy + offset;
      for (int64_t o = 0; o < t.O; o += Simd::kLanes, w += C * Simd::kLanes) {
        const int64_t left = t.O - o;
        Simd::Reg g[M];
        for (int m = 0; m < M; ++m)
          g[m] = left >= Simd::kLanes ? Simd::load(at[m] + o) : Simd::load_first(at[m] + o, static_cast<int>(left));
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          const Simd::Reg filter = Simd::load(w + c * Simd::kLanes);
#pragma GCC unroll 16
          for (int m = 0; m < M; ++m)
            acc[m * C + c] = Simd::add_clipped(acc[m * C + c], g[m], filter, at_x[m * C + c], (c * M + m) % 2 == 1);
        }
      }
    }
  float sums[M * C];
  add_lanes(acc, sums);
  for (int m = 0; m < M; ++m)
    for (int c = 0; c < C; ++c) {
      const float value = x[positions[m].pixel + c];
      dx[positions[m].pixel + c] = (std::isnan(value) ? value : sums[m * C + c]) + t.poison[c];
    }
}

using ThinTile = void (*)(const GradTile&, const InputPosition*, const float*, float*);

// The tile for C channels, and how many positions it takes.
struct ThinTileOf {
  ThinTile tile;
  int64_t rows;

  explicit ThinTileOf(int64_t C) {
    constexpr ThinTile kTiles[] = {thin_tile<1>, thin_tile<2>, thin_tile<3>, thin_tile<4>,
                                   thin_tile<5>, thin_tile<6>, thin_tile<7>, thin_tile<8>};
    constexpr int64_t kRows[] = {kThinRows<1>, kThinRows<2>, kThinRows<3>, kThinRows<4>,
                                 kThinRows<5>, kThinRows<6>, kThinRows<7>, kThinRows<8>};
    tile = kTiles[C - 1];
    rows = kRows[C - 1];
  }
};

}  // namespace
}  // namespace addertrain::cpu
