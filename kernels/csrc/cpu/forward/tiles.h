// The forward pass for one instruction set (a `Simd` is in scope).
//
//   Y = sum_k (2 min(x, w) - x - w)                = -sum_k |x - w|                                     (Eq. 2)
//   Y + sum_k |w| = 2 sum_k min(x, w) - sum_k x + sum_k (|w| - w)                                  (offset-free)
//
// Why that is as fast as a convolution: the subtraction, the absolute value and the sum of |x - w| are three instructions
// for the two adder pipes of a core. Here the minimum alone is left on them. The sum over k is a multiplication by one
// (Simd::add_min) on the two FMA pipes, which a convolution keeps busy with as many instructions, and the sums over x
// and over w are taken once for a position and once for a filter.
//
// Filters lie along the registers, positions are broadcast: images stay interleaved, nothing is unfolded, any stride
// costs the same. Where a unit has x >= 0 throughout (behind every ReLU), w < 0 counts as w = 0: min(x, w) - w is then
// 0 exactly, and the response keeps ten times more digits. sum_k x carries a NaN or an infinity of x into y, the
// filters' constants carry those of w. Where both lie far from 0 and near each other, forward/exact.h puts the plain sum.
#pragma once

#include <cmath>

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/pack.h"
#include "csrc/cpu/movement/units.h"

namespace addertrain::cpu {
namespace {

// Whether neighbouring outputs can share a broadcast pixel.
inline bool is_sliding(const Layer& d) {
  return d.stride_w == 1 && d.dilation_w == 1 && (d.S == 3 || d.S == 5) && d.Q >= 4;
}

// How filters are divided into blocks of 4, 2 or 1 registers.
struct FilterBlocks {
  int64_t registers, fours, twos, ones;

  explicit FilterBlocks(const Layer& d) : registers(ceil_div(d.O, Simd::kLanes)) {
    // Four registers are fastest on tiles of four neighbours; a row of 7 or 14 would waste an eighth of them.
    const bool is_fours = Simd::kMaxVectors >= 4 && (!is_sliding(d) || d.Q % 4 == 0 || d.Q > 32);
    fours = is_fours ? registers / 4 : 0;
    twos = (registers - 4 * fours) / 2;
    ones = registers - 4 * fours - 2 * twos;
  }
  int64_t count() const { return fours + twos + ones; }
  int64_t width(int64_t block) const { return block < fours ? 4 : block < fours + twos ? 2 : 1; }
  int64_t first_register(int64_t block) const {
    if (block <= fours) return 4 * block;
    return 4 * fours + 2 * std::min(block - fours, twos) + std::max<int64_t>(0, block - fours - twos);
  }
};

// The filter's taps in the order in which a tile walks them.
//   sliding: row r, channel c, column s; a broadcast of x serves S neighbouring outputs (stride and dilation 1 across)
//   plain:   row r, column s, channel c; one broadcast serves one output
struct Walk {
  bool is_sliding;
  int64_t num_runs, run_length;
  int64_t rows_per_run;  // of the packed block

  explicit Walk(const Layer& d) : is_sliding(cpu::is_sliding(d)) {
    const bool is_merged = !is_sliding && d.dilation_w == 1;  // columns and channels are one contiguous run
    num_runs = is_sliding || is_merged ? d.R : d.R * d.S;
    run_length = is_sliding ? d.C : is_merged ? d.S * d.C : d.C;
    rows_per_run = d.C * d.R * d.S / num_runs;
  }
  // Offset of run i from a position's first tap.
  int64_t offset(const Layer& d, int64_t i, int64_t row_pitch) const {
    if (num_runs == d.R) return i * d.dilation_h * row_pitch;
    return i / d.S * d.dilation_h * row_pitch + i % d.S * d.dilation_w * d.C;
  }
  // Place of tap (c, r, s) in the packed block.
  int64_t packed_row(const Layer& d, int64_t c, int64_t r, int64_t s) const {
    return is_sliding ? (r * d.C + c) * d.S + s : (r * d.S + s) * d.C + c;
  }
};

// A response whose sum of |x - w| is less than this share of its filter's sum |w| has lost digits (forward/exact.h).
constexpr double kFewDigits = 0.125;

// Packed filters: [block][K][width * lanes] as they are, the same with w < 0 replaced by 0, and five rows of constants.
struct PackedForward {
  int64_t K, lanes;
  float* filters;
  float* clipped;
  float* constant;
  float* constant_clipped;
  float* offset;      // what -sum |x - w| is added to
  float* limit;       // kFewDigits * sum |w|
  float* below_zero;  // sum |w| over w < 0

  PackedForward(const Layer& d, float* packed) : K(d.C * d.R * d.S), lanes(ceil_div(d.O, Simd::kLanes) * Simd::kLanes) {
    filters = packed;
    clipped = filters + K * lanes;
    constant = clipped + K * lanes;
    constant_clipped = constant + lanes;
    offset = constant_clipped + lanes;
    limit = offset + lanes;
    below_zero = limit + lanes;
  }
  float* end() const { return below_zero + lanes; }
  static int64_t floats(const Layer& d) {
    const PackedForward p(d, nullptr);
    return (2 * p.K + 5) * p.lanes;
  }
};

// sum |w| and sum w of a filter in float64, in several chains: one chain of additions would take longer than all the rest.
struct FilterSums {
  double absolute = 0, plain = 0;

  FilterSums(const float* w, int64_t K) {
    constexpr int kChains = 8;
    double absolutes[kChains] = {}, plains[kChains] = {};
    int64_t k = 0;
    for (; k + kChains <= K; k += kChains)
      for (int i = 0; i < kChains; ++i) absolutes[i] += std::fabs(w[k + i]), plains[i] += w[k + i];
    for (; k < K; ++k) absolute += std::fabs(w[k]), plain += w[k];
    for (int i = 0; i < kChains; ++i) absolute += absolutes[i], plain += plains[i];
  }
};

inline void pack_constants(const DenseForwardCall& call, const PackedForward& to, int64_t o) {
  to.constant[o] = to.constant_clipped[o] = to.offset[o] = to.limit[o] = to.below_zero[o] = 0.0f;
  if (o >= call.layer.O) return;  // the block's tail: computed, never stored
  const FilterSums sums(call.w + o * to.K, to.K);
  const double nothing_if_finite = sums.absolute - sums.absolute;  // NaN for a NaN or an infinity in w
  to.constant[o] = static_cast<float>(call.offset_free ? sums.absolute - sums.plain : -sums.plain);
  to.constant_clipped[o] = static_cast<float>(call.offset_free ? nothing_if_finite : -sums.absolute);
  to.offset[o] = static_cast<float>(call.offset_free ? sums.absolute : 0.0);
  to.limit[o] = static_cast<float>(kFewDigits * sums.absolute);
  to.below_zero[o] = static_cast<float>(0.5 * (sums.absolute - sums.plain));
}

inline void pack_forward(const DenseForwardCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const PackedForward to(d, packed);
  const FilterBlocks blocks(d);
  const Walk walk(d);
  const int64_t lane0 = blocks.first_register(block) * Simd::kLanes, width = blocks.width(block) * Simd::kLanes;
  for (int64_t lane = 0; lane < width; lane += Simd::kLanes) {
    const int64_t o0 = lane0 + lane;
    float* filters = to.filters + lane0 * to.K + lane;
    float* clipped = to.clipped + lane0 * to.K + lane;
    FilterTap tap{0, 0, 0};
    for_transposed(call.w + o0 * to.K, to.K, lanes_left(d.O, o0), to.K, [&](int64_t, Simd::Reg w) {
      const int64_t row = walk.packed_row(d, tap.c, tap.r, tap.s) * width;
      Simd::store(filters + row, w);
      Simd::store(clipped + row, Simd::max(Simd::zero(), w));
      tap.advance(d, call.w_order);
    });
    for (int64_t o = o0; o < o0 + Simd::kLanes; ++o) pack_constants(call, to, o);
  }
}

// ---------------------------------------------------------------- tiles

// What a tile needs to know of its unit.
struct ForwardTile {
  const float* filters;     // packed block
  const float* constant;    // per filter of the block
  const int64_t* runs;      // offsets of runs
  int64_t first_run, num_runs, run_length;
  int64_t pixel_pitch;      // floats between neighbouring pixels (= C)
  int64_t y_pitch;          // floats between neighbouring outputs (= O)
  int64_t num_filters;      // of the block, without its tail
  bool is_first, is_last;   // pass over the taps: between passes y holds the sums
};

template <int V>
inline void load_sums(const ForwardTile& t, const float* y, Simd::Reg (&acc)[V]) {
  for (int v = 0; v < V; ++v) {
    const int64_t left = t.num_filters - v * Simd::kLanes;
    acc[v] = t.is_first || left <= 0 ? Simd::zero()
             : left >= Simd::kLanes  ? Simd::load(y + v * Simd::kLanes)
                                     : Simd::load_first(y + v * Simd::kLanes, static_cast<int>(left));
  }
}

// y = 2 acc - sum x + constant for one position; before the last pass the sums alone.
template <int V>
inline void store_response(const ForwardTile& t, const Simd::Reg (&acc)[V], float x_sum, float* y) {
  const Simd::Reg minus_x = Simd::broadcast(-x_sum);
  for (int v = 0; v < V; ++v) {
    const int64_t left = t.num_filters - v * Simd::kLanes;
    if (left <= 0) return;
    const Simd::Reg offset = Simd::add(minus_x, Simd::load(t.constant + v * Simd::kLanes));
    const Simd::Reg value = t.is_last ? Simd::scale_add(2.0f, acc[v], offset) : acc[v];
    if (left >= Simd::kLanes)
      Simd::store(y + v * Simd::kLanes, value);
    else
      Simd::store_first(y + v * Simd::kLanes, value, static_cast<int>(left));
  }
}

// M positions anywhere: acc[m][o] += min(x[m][k], w[k][o]).
template <int V, int M>
void plain_tile(const ForwardTile& t, const float* const* x, const float* x_sum, float* const* y) {
  Simd::Reg acc[M][V];
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m) load_sums<V>(t, y[m], acc[m]);
  const float* w = t.filters;
  for (int64_t run = 0; run < t.num_runs; ++run) {
    const float* at[M];
    for (int m = 0; m < M; ++m) at[m] = x[m] + t.runs[run];
    for (int64_t k = 0; k < t.run_length; ++k, w += V * Simd::kLanes) {
      Simd::Reg filter[V];
      for (int v = 0; v < V; ++v) filter[v] = Simd::load(w + v * Simd::kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Simd::Reg pixel = Simd::broadcast_at(at[m] + k);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[m][v] = Simd::add_min(acc[m][v], pixel, filter[v]);
      }
    }
  }
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m) store_response<V>(t, acc[m], x_sum[m], y[m]);
}

// M neighbours in a row, S taps across: each broadcast pixel serves the S outputs that see it. The first `num_done`
// outputs are another tile's.
template <int S, int V, int M>
void sliding_tile(const ForwardTile& t, const float* x, const float* x_sum, float* y, int64_t num_done) {
  Simd::Reg acc[M][V];
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m) load_sums<V>(t, y + m * t.y_pitch, acc[m]);
  const float* w = t.filters;
  const int64_t pitch = t.pixel_pitch;
  for (int64_t run = 0; run < t.num_runs; ++run) {
    const float* at = x + t.runs[run];
    for (int64_t c = 0; c < t.run_length; ++c, ++at, w += S * V * Simd::kLanes) {
      Simd::Reg filter[S][V];
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) filter[s][v] = Simd::load(w + (s * V + v) * Simd::kLanes);
#pragma GCC unroll 40
      for (int i = 0; i < M + S - 1; ++i) {
        const Simd::Reg pixel = Simd::broadcast_at(at + i * pitch);
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) {
          const int m = i - s;
          if (m < 0 || m >= M) continue;
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[m][v] = Simd::add_min(acc[m][v], pixel, filter[s][v]);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m)
    if (m >= num_done) store_response<V>(t, acc[m], x_sum[m], y + m * t.y_pitch);
}

}  // namespace
}  // namespace addertrain::cpu
