// Walks the units of a forward pass: brings in the input, sums it under each filter position, runs the tiles.
#pragma once

#include "csrc/cpu/forward/exact.h"
#include "csrc/cpu/forward/positive.h"
#include "csrc/cpu/forward/sparse.h"
#include "csrc/cpu/forward/tiles.h"
#include "csrc/cpu/movement/pixel_sums.h"
#include "csrc/cpu/simd/operations.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kPassFloats = 96 * 1024;

struct ForwardScratch {
  Scratch window, pixel_sums, across, x_sums, response;
  PointerTable positions;
  OffsetTable runs;
  NonZeroScratch non_zeros;
  RowScratch rows;
};
thread_local ForwardScratch forward_scratch;

// ---------------------------------------------------------------- sums of the input

// to[i] = from[i * stride], or to[i] += it.
inline void add_strided(const float* from, int64_t stride, int64_t count, bool is_first, float* __restrict to) {
  if (stride != 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = (is_first ? 0.0f : to[i]) + from[i * stride];
    return;
  }
  int64_t i = 0;
  for (; i + Simd::kLanes <= count; i += Simd::kLanes) {
    const Simd::Reg value = Simd::load(from + i);
    Simd::store(to + i, is_first ? value : Simd::add(Simd::load(to + i), value));
  }
  for (; i < count; ++i) to[i] = (is_first ? 0.0f : to[i]) + from[i];
}

// sum_k x under every position: pixel sums over the filter's columns, then over its rows. `across` is scratch for the
// first of the two, window rows x Q.
inline void sum_positions(const Layer& d, int64_t images, int64_t rows, const Window& window, const float* pixel_sums,
                          float* across, float* x_sums) {
  for (int64_t n = 0; n < images; ++n, pixel_sums += window.rows * window.columns) {
    for (int64_t i = 0; i < window.rows; ++i)
      for (int64_t s = 0; s < d.S; ++s)
        add_strided(pixel_sums + i * window.columns + s * d.dilation_w, d.stride_w, d.Q, s == 0, across + i * d.Q);
    for (int64_t p = 0; p < rows; ++p, x_sums += d.Q)
      for (int64_t r = 0; r < d.R; ++r)
        add_strided(across + (p * d.stride_h + r * d.dilation_h) * d.Q, 1, d.Q, r == 0, x_sums);
  }
}

// ---------------------------------------------------------------- tiles over a unit

struct ForwardUnit {
  Buffer x;
  int64_t images, rows;
  const NonZeros* non_zeros;  // null where x is dense
  const float* x_sums;        // of every position, padded to a full tile
  float* y;                   // position-major, O floats a position
};

// No output is in two tiles, because in every pass but the first a tile adds to what y holds. The last tile is filled up
// with the last position: it computes its sums several times, each time from what y held before.
template <int V, int M>
void plain_block(const Layer& d, const ForwardTile& t, const ForwardUnit& unit, const float* const* positions) {
  const int64_t count = unit.images * unit.rows * d.Q;
  for (int64_t at = 0; at < count; at += M) {
    float* y[M];
    for (int m = 0; m < M; ++m) y[m] = unit.y + std::min(at + m, count - 1) * d.O;
    plain_tile<V, M>(t, positions + at, unit.x_sums + at, y);
  }
}

// The last tile of a row reads columns of the one before it, whose outputs it leaves as they are.
template <int S, int V, int M>
void sliding_block(const Layer& d, const ForwardTile& t, const ForwardUnit& unit) {
  for (int64_t n = 0; n < unit.images; ++n)
    for (int64_t p = 0; p < unit.rows; ++p) {
      const int64_t position = (n * unit.rows + p) * d.Q;
      const float* x = unit.x.data + n * unit.x.image_pitch + p * d.stride_h * unit.x.row_pitch;
      for (int64_t q = 0; q < d.Q; q += M) {
        const int64_t at = std::min(q, d.Q - M);
        sliding_tile<S, V, M>(t, x + at * d.C, unit.x_sums + position + at, unit.y + (position + at) * d.O, q - at);
      }
    }
}

template <int S, int V, int M>
void sparse_block(const Layer& d, const ForwardTile& t, const ForwardUnit& unit) {
  const NonZeros& x = *unit.non_zeros;
  for (int64_t n = 0; n < unit.images; ++n)
    for (int64_t p = 0; p < unit.rows; ++p) {
      const int64_t position = (n * unit.rows + p) * d.Q;
      const int64_t pixel = n * x.image_pitch + p * d.stride_h * x.row_pitch;
      for (int64_t q = 0; q < d.Q; q += M) {
        const int64_t at = std::min(q, d.Q - M);
        sparse_tile<S, V, M>(t, x, pixel + at, d.dilation_h * x.row_pitch, unit.x_sums + position + at,
                             unit.y + (position + at) * d.O, q - at);
      }
    }
}

using SlidingBlock = void (*)(const Layer&, const ForwardTile&, const ForwardUnit&);

// The tile width of a list that wastes least on rows of Q outputs; the list starts with the narrowest, 4.
template <template <int> typename BlockOf, int... Ms>
SlidingBlock best_block(int64_t Q, TileWidths<Ms...>) {
  SlidingBlock best = nullptr;
  int64_t best_cost = INT64_MAX;
  [[maybe_unused]] const auto consider = [&](int64_t M, SlidingBlock block) {
    const int64_t cost = ceil_div(Q, M) * (M + 1);
    if (M <= Q && cost <= best_cost) best = block, best_cost = cost;
  };
  (consider(Ms, BlockOf<Ms>::run), ...);
  return best;
}

template <int S, int V>
struct Sliding {
  template <int M>
  struct Of {
    static constexpr SlidingBlock run = &sliding_block<S, V, M>;
  };
};

template <int S, int V>
struct Sparse {
  template <int M>
  struct Of {
    static constexpr SlidingBlock run = &sparse_block<S, V, M>;
  };
};

template <int S>
SlidingBlock sliding_block_of(int64_t width, int64_t Q, bool is_sparse) {
  if constexpr (Simd::kHasCompress)
    if (is_sparse) {
      if (width == 4) return best_block<Sparse<S, 4>::template Of>(Q, Simd::SparseWidths4{});
      if (width == 2) return best_block<Sparse<S, 2>::template Of>(Q, Simd::SparseWidths2{});
      return best_block<Sparse<S, 1>::template Of>(Q, Simd::SparseWidths1{});
    }
  if constexpr (Simd::kMaxVectors >= 4)
    if (width == 4) return best_block<Sliding<S, 4>::template Of>(Q, Simd::SlidingWidths4{});
  if (width == 2) return best_block<Sliding<S, 2>::template Of>(Q, Simd::SlidingWidths2{});
  return best_block<Sliding<S, 1>::template Of>(Q, Simd::SlidingWidths1{});
}

inline void run_pass(const Layer& d, const Walk& walk, int64_t width, const ForwardTile& t, const ForwardUnit& unit,
                     const float* const* positions) {
  if (walk.is_sliding) {
    const bool is_sparse = unit.non_zeros != nullptr;
    const SlidingBlock block =
        d.S == 3 ? sliding_block_of<3>(width, d.Q, is_sparse) : sliding_block_of<5>(width, d.Q, is_sparse);
    block(d, t, unit);
    return;
  }
  if constexpr (Simd::kMaxVectors >= 4)
    if (width == 4) return plain_block<4, Simd::kForwardRows4>(d, t, unit, positions);
  if (width == 2) return plain_block<2, Simd::kForwardRows2>(d, t, unit, positions);
  plain_block<1, Simd::kForwardRows>(d, t, unit, positions);
}

// A block in as many passes over its taps as keep the packed filters of a pass in the second-level cache.
inline void run_block(const Layer& d, const Walk& walk, int64_t width, const ForwardTile& block,
                      const ForwardUnit& unit, const float* const* positions) {
  const int64_t floats_per_run = walk.rows_per_run * width * Simd::kLanes;
  const int64_t runs_per_pass = std::max<int64_t>(1, kPassFloats / floats_per_run);
  for (int64_t run = 0; run < walk.num_runs; run += runs_per_pass) {
    ForwardTile t = block;
    t.filters += run * floats_per_run;
    t.runs += run;
    t.first_run = run;
    t.num_runs = std::min(runs_per_pass, walk.num_runs - run);
    t.is_first = run == 0;
    t.is_last = run + t.num_runs == walk.num_runs;
    run_pass(d, walk, width, t, unit, positions);
  }
}

// ---------------------------------------------------------------- units

constexpr int64_t kMostRows = 16;  // no tile is taller

inline Cut cut_forward(const Layer& d) {
  const int64_t floats_per_row = d.stride_h * (d.W + 2 * d.padding_w) * d.C;
  return Cut(d.N, d.P, d.Q, floats_per_row, 1);
}

// Pointers to the first tap of every position, in the order of the outputs; padded to a full tile with the last one.
inline const float* const* list_positions(const Layer& d, const ForwardUnit& unit, PointerTable& table) {
  const int64_t count = unit.images * unit.rows * d.Q;
  const float** at = table.entries(count + kMostRows);
  int64_t i = 0;
  for (int64_t n = 0; n < unit.images; ++n)
    for (int64_t p = 0; p < unit.rows; ++p) {
      const float* row = unit.x.data + n * unit.x.image_pitch + p * d.stride_h * unit.x.row_pitch;
      for (int64_t q = 0; q < d.Q; ++q) at[i++] = row + q * d.stride_w * d.C;
    }
  for (int64_t m = 0; m < kMostRows; ++m) at[i + m] = at[count - 1];
  return at;
}

// The input under the filters of a unit's positions, spatial padding included.
inline Window window_of(const Layer& d, const Unit& cut) {
  return {cut.row0 * d.stride_h - d.padding_h, (cut.rows() - 1) * d.stride_h + (d.R - 1) * d.dilation_h + 1,
          -d.padding_w, (d.Q - 1) * d.stride_w + (d.S - 1) * d.dilation_w + 1};
}

inline const int64_t* list_runs(const Layer& d, const Walk& walk, const Buffer& x, OffsetTable& table) {
  int64_t* runs = table.entries(walk.num_runs);
  for (int64_t i = 0; i < walk.num_runs; ++i) runs[i] = walk.offset(d, i, x.row_pitch);
  return runs;
}

// Computes the responses of a unit by the identity; returns the least x, or 0 if no x is negative.
inline float compute_by_identity(const DenseForwardCall& call, const Walk& walk, const PackedForward& packed,
                                 const Unit& cut, float* y) {
  const Layer& d = call.layer;
  ForwardScratch& scratch = forward_scratch;
  const int64_t positions = cut.images() * cut.rows() * d.Q;
  if constexpr (Simd::kHasCompress)
    if (can_be_positive(d)) {
      const PositiveLists lists(d, packed.end());
      if (compute_positive_unit(call, lists, packed.constant_clipped, cut, y, scratch.rows)) return 0.0f;
    }
  const Window window = window_of(d, cut);
  const Buffer x = read_window(call.x, {d.C, d.H, d.W}, cut.n0, cut.n1, window, scratch.window);
  float* pixel_sums = scratch.pixel_sums.entries(cut.images() * window.rows * window.columns);
  float* x_sums = scratch.x_sums.entries(positions + kMostRows);
  const float lowest = sum_pixels(x, cut.images(), window, d.C, pixel_sums);
  sum_positions(d, cut.images(), cut.rows(), window, pixel_sums, scratch.across.entries(window.rows * d.Q), x_sums);
  for (int64_t m = 0; m < kMostRows; ++m) x_sums[positions + m] = x_sums[positions - 1];

  const bool is_nonnegative = lowest == 0.0f;
  const bool is_sparse =
      is_nonnegative && can_be_sparse(d, walk) && has_few_non_zeros(x, cut.images(), window, d);
  NonZeros non_zeros{};
  if (is_sparse) non_zeros = list_non_zeros(x, cut.images(), window, d, scratch.non_zeros);
  const ForwardUnit unit{x, cut.images(), cut.rows(), is_sparse ? &non_zeros : nullptr, x_sums, y};
  const float* const* at = walk.is_sliding ? nullptr : list_positions(d, unit, scratch.positions);
  const int64_t* runs = list_runs(d, walk, x, scratch.runs);

  const FilterBlocks blocks(d);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const int64_t lane0 = blocks.first_register(b) * Simd::kLanes;
    const float* filters = (is_nonnegative ? packed.clipped : packed.filters) + lane0 * packed.K;
    const float* constant = (is_nonnegative ? packed.constant_clipped : packed.constant) + lane0;
    ForwardTile tile{filters, constant, runs, 0, walk.num_runs, walk.run_length, d.C, d.O, d.O - lane0, true, true};
    ForwardUnit shifted = unit;
    shifted.y += lane0;
    run_block(d, walk, blocks.width(b), tile, shifted, at);
  }
  return lowest;
}

// Replaces responses that have lost digits by plain sums. In most units the filters rule out that there are any.
inline void restore_unit(const DenseForwardCall& call, const Walk& walk, const PackedForward& packed, const Unit& cut,
                         float lowest, float* y) {
  const Layer& d = call.layer;
  ForwardScratch& scratch = forward_scratch;
  const int64_t positions = cut.images() * cut.rows() * d.Q;
  const FilterBlocks blocks(d);
  const float* const* at = nullptr;
  const int64_t* runs = nullptr;
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const int64_t lane0 = blocks.first_register(b) * Simd::kLanes, width = blocks.width(b) * Simd::kLanes;
    if (!can_lose_digits(packed, lane0, width, lowest)) continue;
    for (int64_t lane = lane0; lane < std::min(d.O, lane0 + width); lane += Simd::kLanes) {
      const int filters = lanes_left(d.O, lane);
      if (!has_lost_digits(packed, lane, filters, y + lane, positions, d.O)) continue;
      if (at == nullptr) {
        const Buffer x = read_window(call.x, {d.C, d.H, d.W}, cut.n0, cut.n1, window_of(d, cut), scratch.window);
        at = list_positions(d, {x, cut.images(), cut.rows(), nullptr, nullptr, y}, scratch.positions);
        runs = list_runs(d, walk, x, scratch.runs);
      }
      restore_digits(d, walk, packed, runs, packed.filters + lane0 * packed.K + (lane - lane0), width, lane, filters,
                     at, positions, y + lane);
    }
  }
}

inline void compute_forward_unit(const DenseForwardCall& call, const Walk& walk, const PackedForward& packed,
                                 const Unit& cut) {
  const Layer& d = call.layer;
  const int64_t positions = cut.images() * cut.rows() * d.Q;
  const bool is_in_place = call.y_layout == Layout::kNhwc || d.O == 1 || d.P * d.Q == 1;
  float* y = is_in_place ? call.y + (cut.n0 * d.P + cut.row0) * d.Q * d.O
                         : forward_scratch.response.entries(positions * d.O);
  const float lowest = compute_by_identity(call, walk, packed, cut, y);
  restore_unit(call, walk, packed, cut, lowest, y);
  if (!is_in_place) write_planes(y, {d.O, d.P, d.Q}, cut.n0, cut.n1, cut.row0, cut.row1, call.y);
}

inline int64_t forward_packed_floats(const DenseForwardCall& call) {
  return PackedForward::floats(call.layer) + (can_be_positive(call.layer) ? PositiveLists::floats(call.layer) : 0);
}
inline int64_t forward_num_blocks(const DenseForwardCall& call) { return FilterBlocks(call.layer).count(); }
inline int64_t forward_num_units(const DenseForwardCall& call) { return cut_forward(call.layer).count(); }

inline void compute_forward(const DenseForwardCall& call, const float* packed, int64_t unit_begin, int64_t unit_end) {
  const Walk walk(call.layer);
  const PackedForward filters(call.layer, const_cast<float*>(packed));
  const Cut cut = cut_forward(call.layer);
  for (int64_t i = unit_begin; i < unit_end; ++i) compute_forward_unit(call, walk, filters, Unit(cut, i));
}

inline void pack_forward_block(const DenseForwardCall& call, int64_t block, float* packed) {
  pack_forward(call, block, packed);
  if (!can_be_positive(call.layer)) return;
  const FilterBlocks blocks(call.layer);
  const int64_t o0 = blocks.first_register(block) * Simd::kLanes;
  const PositiveLists lists(call.layer, packed + PackedForward::floats(call.layer));
  for (int64_t o = o0; o < std::min(call.layer.O, o0 + blocks.width(block) * Simd::kLanes); ++o)
    pack_positive(call, lists, o);
}

constexpr PassFunctions<DenseForwardCall> kForwardPass{
    forward_packed_floats, forward_num_blocks, pack_forward_block, forward_num_units, compute_forward};

}  // namespace
}  // namespace addertrain::cpu
