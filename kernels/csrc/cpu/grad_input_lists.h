// The input gradient where x is not 0, for one instruction set (a `Simd` is in scope).
//
// A ReLU drops the gradient of its zeros, so that half of them need not be computed. Filters lie along the registers;
// a tile takes a few non-zeros of one channel, from anywhere in the unit, and the lanes are added up at its end.
#pragma once

#include "csrc/cpu/channel_lists.h"
#include "csrc/cpu/grad_input.h"
#include "csrc/cpu/grad_input_thin.h"

namespace addertrain::cpu {
namespace {

// Packed filters: [c][r][s][registers of filters], zeros behind the last filter; then the poison of each channel.
struct PackedLists {
  int64_t filters_pitch, channel_floats;
  float* filters;
  float* poison;

  PackedLists(const Layer& d, float* packed) : filters_pitch(ceil_div(d.O, Simd::kLanes) * Simd::kLanes) {
    channel_floats = d.R * d.S * filters_pitch;
    filters = packed;
    poison = filters + d.C * channel_floats;
  }
  static int64_t floats(const Layer& d) { return d.C * (PackedLists(d, nullptr).channel_floats + 1); }
};

// A register's worth of channels.
inline void pack_lists(const GradInputCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const PackedLists to(d, packed);
  const int64_t c0 = block * Simd::kLanes, taps = d.R * d.S, K = taps * d.C;
  const int channels = lanes_left(d.C, c0);
  Simd::Reg poison[Simd::kLanes];
  for (Simd::Reg& lanes : poison) lanes = Simd::zero();
  for (int64_t o0 = 0; o0 < to.filters_pitch; o0 += Simd::kLanes) {
    const int filters = lanes_left(d.O, o0);
    const auto put = [&](int64_t c, int64_t tap, Simd::Reg w) {
      Simd::store(to.filters + (c0 + c) * to.channel_floats + tap * to.filters_pitch + o0, w);
      poison[c] = Simd::keep_nan(poison[c], w);
    };
    const float* first = call.w + o0 * K;
    if (call.w_order == FilterOrder::kChannelsOutermost)
      for (int64_t c = 0; c < channels; ++c)
        for_transposed(first + (c0 + c) * taps, K, filters, taps, [&](int64_t tap, Simd::Reg w) { put(c, tap, w); });
    else
      for (int64_t tap = 0; tap < taps; ++tap)
        for_transposed(first + tap * d.C + c0, K, filters, channels, [&](int64_t c, Simd::Reg w) { put(c, tap, w); });
  }
  for (int c = 0; c < channels; ++c) to.poison[c0 + c] = Simd::sum(poison[c]);
}

// acc[m] += dY * HT(w - x[m]) over the filters behind one tap, lane by lane; dY of position m lies at base[m] + at.
template <int M>
inline void add_tap(const float* const (&base)[M], int64_t at, const float* w, int64_t O, const Simd::Reg (&x)[M],
                    Simd::Reg (&acc)[M]) {
  const int64_t end = at + O;
  for (; at + Simd::kLanes <= end; at += Simd::kLanes, w += Simd::kLanes) {
    const Simd::Reg filter = Simd::load(w);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      acc[m] = Simd::add_clipped(acc[m], Simd::load(base[m] + at), filter, x[m], m % 2 == 1);
  }
  if (at == end) return;
  const Simd::Reg filter = Simd::load(w);
  const int left = static_cast<int>(end - at);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
    acc[m] = Simd::add_clipped(acc[m], Simd::load_first(base[m] + at, left), filter, x[m], m % 2 == 1);
}

// dX of M inputs of one channel that see the same taps; filters of that channel in t.filters.
template <int M>
void list_tile(const GradTile& t, const Taps& taps, int64_t filters_pitch, const float* dy, const int32_t (&outputs)[M],
               const float* values, float* sums) {
  Simd::Reg acc[M], x[M];
  const float* base[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    acc[m] = Simd::zero();
    x[m] = Simd::broadcast(values[m]);
    base[m] = dy + outputs[m];
  }
  for (int64_t r = 0; r < t.R; ++r) {
    if (!(taps.rows >> r & 1)) continue;
    for (int64_t s = 0; s < t.S; ++s)
      if (taps.columns >> s & 1)
        add_tap(base, t.down[r] + t.across[s], t.filters + (r * t.S + s) * filters_pitch, t.O, x, acc);
  }
  add_lanes(acc, sums);
}

// What the tiles of one channel and one segment share.
struct ListRun {
  const GradTile& tile;
  const ListedPositions& at;
  const Taps& taps;
  int64_t filters_pitch;
  const float* dy;
  float* dx;  // of the channel, at the unit's first pixel
  float poison;
};

// The next `count` <= M non-zeros; a tile that is not full computes its last member several times.
template <int M>
inline void run_tile(const ListRun& run, const float* values, const int32_t* places, int64_t count) {
  int32_t outputs[M];
  for (int m = 0; m < M; ++m) outputs[m] = run.at.outputs[places[std::min<int64_t>(m, count - 1)]];
  float sums[M];
  list_tile<M>(run.tile, run.taps, run.filters_pitch, run.dy, outputs, values, sums);
  for (int m = 0; m < count; ++m)
    run.dx[run.at.pixels[places[m]]] = (std::isnan(values[m]) ? values[m] : sums[m]) + run.poison;
}

inline void run_list(const ListRun& run, const ChannelList& list) {
  constexpr int kWhole = Simd::kListRows, kHalf = kWhole / 2, kQuarter = kWhole / 4;
  for (int64_t j = 0; j < list.count; j += kWhole) {
    const int64_t count = std::min<int64_t>(kWhole, list.count - j);
    if (count > kHalf)
      run_tile<kWhole>(run, list.values + j, list.places + j, count);
    else if (count > kQuarter)
      run_tile<kHalf>(run, list.values + j, list.places + j, count);
    else
      run_tile<kQuarter>(run, list.values + j, list.places + j, count);
  }
}

inline void compute_non_zeros(const Layer& d, const PackedLists& packed, const GradUnit& unit, const Residue& residue,
                              GradTile tile, float* dx, ListScratch& scratch) {
  const ListedPositions at(unit, residue, scratch);
  for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
    const int channels = static_cast<int>(std::min<int64_t>(Simd::kLanes, d.C - c0));
    const ChannelLists lists(residue, at.pixels, unit.x + c0, channels, scratch);
    for (int lane = 0; lane < channels; ++lane) {
      const int64_t c = c0 + lane;
      tile.filters = packed.filters + c * packed.channel_floats;
      for (int64_t i = 0; i < residue.num_segments; ++i)
        run_list({tile, at, residue.segments[i].taps, packed.filters_pitch, unit.dy.data, dx + c, packed.poison[c]},
                 lists.list(lane, i));
    }
  }
}

}  // namespace
}  // namespace addertrain::cpu
