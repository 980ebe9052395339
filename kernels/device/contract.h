// The adder layer's contraction, forward and input gradient, on 4-byte words: an implicit GEMM without the unfolding.
//
// Registers hold TM x TN sums a thread, shared memory kStages slabs of both operands, k outside. A step of k costs
// (TM + TN)/4 shared loads of 16 bytes and two instructions an element. Every sum has one order: no atomics.
#pragma once

#include "device/elements.h"
#include "device/epilogue.h"
#include "device/word_loaders.h"

namespace addertrain {

template <class Op>
struct ContractParams {
  Problem problem;
  const typename Op::Word* a;
  const typename Op::Word* b;      // packed, [phase][steps][pitch]
  const typename Op::Out* x;       // input gradient: where HT is taken
  typename Op::Out* out;
  ImageStrides x_strides;
  Epilogue<typename Op::Out> epilogue;
  int64_t b_phase;                 // words of B a phase
  int b_pitch;
  int tiles_n, slabs_per_split;
  int64_t split_size;              // outputs
  bool is_vector_out;              // four columns lie side by side and aligned
};

template <class Word>
struct alignas(16) Word4 {
  Word v[4];
};

// Calls visit(i, j, m, n, count): output i, j of the thread is row m, columns n .. n + count - 1 of the result.
template <class P, class Visit>
ADDERTRAIN_DEVICE void for_each_output(const ThreadPlace<P>& place, int rows, int columns, int tile_m, int tile_n,
                                       Visit visit) {
#pragma unroll
  for (int i = 0; i < P::TM; ++i) {
    const int m = tile_m + place.row(i);
    if (m >= rows) continue;
#pragma unroll
    for (int j = 0; j < P::TN; j += 4) {
      const int n = tile_n + place.column(j);
      if (n < columns) visit(i, j, m, n, min(columns - n, 4));
    }
  }
}

// One slab: both operands of a step in registers, then every pair of them.
template <class P, class Op, class Word, class X>
ADDERTRAIN_DEVICE void add_slab(const Word* a_tile, const Word* b_tile, const ThreadPlace<P>& place, const X& x,
                                float (&acc)[P::TM][P::TN]) {
  const Word* at_a = a_tile + place.ty * 4;
  const Word* at_b = b_tile + place.tx * 4;
#pragma unroll
  for (int k = 0; k < P::BK; ++k) {
    Word4<Word> a[P::TM / 4], b[P::TN / 4];
#pragma unroll
    for (int i = 0; i < P::TM / 4; ++i)
      a[i] = load_vector<Word4<Word>>(at_a + k * P::kPitchA + i * 4 * P::kRowThreads);
#pragma unroll
    for (int j = 0; j < P::TN / 4; ++j)
      b[j] = load_vector<Word4<Word>>(at_b + k * P::kPitchB + j * 4 * P::kColThreads);
#pragma unroll
    for (int i = 0; i < P::TM; ++i)
#pragma unroll
      for (int j = 0; j < P::TN; ++j)
        acc[i][j] = Op::step(acc[i][j], a[i / 4].v[i % 4], b[j / 4].v[j % 4], x(i, j));
  }
}

// Sums of g over k for each row of the tile: all threads share the adding, then read each other's parts.
template <class P>
struct RowSums {
  static constexpr int kQuads = P::BM / 4, kParts = P::kThreads / kQuads;
  static_assert(P::kThreads % kQuads == 0 && P::BK % kParts == 0);
  float mine[4] = {};

  ADDERTRAIN_DEVICE void add_slab(const float* a_tile) {
    const float* at = a_tile + threadIdx.x / kQuads * P::kPitchA + threadIdx.x % kQuads * 4;
#pragma unroll
    for (int k = 0; k < P::BK; k += kParts) {
      const auto g = load_vector<Word4<float>>(at + k * P::kPitchA);
#pragma unroll
      for (int q = 0; q < 4; ++q) mine[q] += g.v[q];
    }
  }
  ADDERTRAIN_DEVICE void share(float* shared) const {
    barrier();  // everybody is done with the tiles
#pragma unroll
    for (int q = 0; q < 4; ++q) shared[threadIdx.x / kQuads * P::BM + threadIdx.x % kQuads * 4 + q] = mine[q];
    barrier();
  }
  static ADDERTRAIN_DEVICE float total(const float* shared, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int part = 0; part < kParts; ++part) sum += shared[part * P::BM + row];
    return sum;
  }
};

// The response's sum and sum of squares for each column of the tile.
template <class P>
ADDERTRAIN_DEVICE void write_statistics(const float (&y)[P::TM][P::TN], const ThreadPlace<P>& place, int rows,
                                        int tile_m, float* shared, float* tile_statistics, int tile_n, int columns) {
  const ColumnStatistics<P::kRowThreads, P::BN> statistics{shared};
  static_assert(2 * P::kRowThreads * P::BN * 4 <= P::kSharedBytes);
  barrier();  // everybody is done with the tiles
#pragma unroll
  for (int j = 0; j < P::TN; ++j) {
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < P::TM; ++i) {
      const float v = tile_m + place.row(i) < rows ? y[i][j] : 0.0f;
      sum += v, squares = fmaf(v, v, squares);
    }
    statistics.put(place.ty, place.column(j), sum, squares);
  }
  barrier();
  statistics.write(tile_statistics, tile_n, columns, P::kThreads);
}

template <class P, class Op>
ADDERTRAIN_DEVICE void store_tile(const ContractParams<Op>& p, const Phase& phase, const ThreadPlace<P>& place,
                                  int tile_m, int tile_n, float (&acc)[P::TM][P::TN], float* shared) {
  const Problem& problem = p.problem;
  const int rows = phase.rows(problem);
  if (p.epilogue.partial) {
    float* slice = p.epilogue.partial + blockIdx.y * p.split_size;
    for_each_output(place, rows, problem.columns, tile_m, tile_n, [&](int i, int j, int m, int n, int count) {
      float* to = slice + output_number(problem, phase, m) * problem.columns + n;
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (q < count) to[q] = acc[i][j + q];
    });
    return;
  }
#pragma unroll
  for (int j = 0; j < P::TN; ++j) {
    const float column = p.epilogue.column[min(tile_n + place.column(j), problem.columns - 1)];
#pragma unroll
    for (int i = 0; i < P::TM; ++i) acc[i][j] += column;
  }
  for_each_output(place, rows, problem.columns, tile_m, tile_n, [&](int i, int j, int m, int n, int count) {
    const int64_t at = output_offset(phase, problem.out, m) + n * problem.out.c;
    typename Op::Out y[4];
#pragma unroll
    for (int q = 0; q < 4; ++q)
      if (q < count) y[q] = p.epilogue.result(acc[i][j + q], n + q, at + q * problem.out.c);
    if (p.is_vector_out) {
      store_vector(p.out + at, Word4<typename Op::Out>{y[0], y[1], y[2], y[3]});
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (q < count) p.out[at + q * problem.out.c] = y[q];
    }
  });
  if (p.epilogue.statistics)
    write_statistics<P>(acc, place, rows, tile_m, shared,
                        p.epilogue.statistics + int64_t{2} * (tile_m / P::BM) * problem.columns, tile_n,
                        problem.columns);
}

// blockIdx: x tiles, columns first, so that a tile of A comes from memory once; y splits of k; z phases.
template <class P, class Op, bool kVector>
__global__ void __launch_bounds__(P::kThreads, P::kMinBlocks)
    adder_contract_kernel(const __grid_constant__ ContractParams<Op> p) {
  using Word = typename Op::Word;
  const Phase phase(p.problem);
  const int tile_m = blockIdx.x / p.tiles_n * P::BM, tile_n = blockIdx.x % p.tiles_n * P::BN;
  const int rows = phase.rows(p.problem);
  if (tile_m >= rows) return;  // phases differ in size
  const int first = blockIdx.y * p.slabs_per_split;
  const int num_slabs = min((phase.depth(p.problem) + P::BK - 1) / P::BK - first, p.slabs_per_split);

  Word* shared = reinterpret_cast<Word*>(dynamic_shared());
  PositionLoader<P, Word, kVector> positions;
  FilterLoader<P, Word> filters;
  positions.init(p.problem, phase, p.a, tile_m, first * P::BK);
  filters.init(p.b + blockIdx.z * p.b_phase, p.b_pitch, tile_n, first * P::BK);
  auto load_slab = [&](int stage) {
    positions.load(p.problem, phase, shared + stage * P::kStageWords);
    filters.load(shared + stage * P::kStageWords + P::BK * P::kPitchA);
  };
#pragma unroll
  for (int stage = 0; stage < P::kStages - 1; ++stage) {
    if (stage < num_slabs) load_slab(stage);
    copy_commit();
  }

  const ThreadPlace<P> place;
  float acc[P::TM][P::TN] = {};
  float x[Op::kIsGrad ? P::TM : 1][Op::kIsGrad ? P::TN : 1] = {};  // x/2: the third operand stays in registers
  if constexpr (Op::kIsGrad)
    for_each_output(place, rows, p.problem.columns, tile_m, tile_n, [&](int i, int j, int m, int n, int count) {
      const auto* from = p.x + output_offset(phase, p.x_strides, m) + n * p.x_strides.c;
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (q < count) x[i][j + q] = 0.5f * to_float(from[q * p.x_strides.c]);
    });
  auto x_of = [&](int i, int j) { return Op::kIsGrad ? x[i][j] : 0.0f; };

  [[maybe_unused]] RowSums<P> g_sums;
  int read = 0, write = P::kStages - 1;
  for (int slab = 0; slab < num_slabs; ++slab) {
    copy_wait<P::kStages - 2>();
    barrier();  // the slab has landed for all, and nobody reads the stage that is overwritten next
    if (slab + P::kStages - 1 < num_slabs) load_slab(write);
    copy_commit();
    const Word* a_tile = shared + read * P::kStageWords;
    if constexpr (Op::kIsGrad) g_sums.add_slab(a_tile);
    add_slab<P, Op>(a_tile, a_tile + P::BK * P::kPitchA, place, x_of, acc);
    read = read + 1 == P::kStages ? 0 : read + 1;
    write = write + 1 == P::kStages ? 0 : write + 1;
  }

  float* const sums = reinterpret_cast<float*>(shared);
  if constexpr (Op::kIsGrad) {  // dX = 2 sum g*sat - sum g; saturating made 0 of a NaN in x
    g_sums.share(sums);
#pragma unroll
    for (int i = 0; i < P::TM; ++i) {
      const float total = RowSums<P>::total(sums, place.row(i));
#pragma unroll
      for (int j = 0; j < P::TN; ++j) acc[i][j] = x[i][j] == x[i][j] ? 2.0f * acc[i][j] - total : x[i][j];
    }
  }
  store_tile<P>(p, phase, place, tile_m, tile_n, acc, sums);
}

}  // namespace addertrain
