// The adder layer's contraction, forward and input gradient, on 4-byte words: an implicit GEMM without the unfolding.
//
// Registers hold TM x TN sums a thread, shared memory kStages slabs of both operands, k outside. A step of k costs
// (TM + TN)/4 shared loads of 16 bytes and one to two instructions an element (elements.h). Every sum has one order:
// no atomics.
#pragma once

#include <type_traits>

#include "device/elements.h"
#include "device/epilogue.h"
#include "device/word_loaders.h"

namespace addertrain {

template <class Word>
struct alignas(16) Word4 {
  Word v[4];
};

// x, or x/2, at each of a thread's outputs, which stays in registers as the third operand.
template <class P, class Word, class Out>
ADDERTRAIN_DEVICE void load_third(float factor, const ContractParams<Word, Out>& p, const Phase& phase, const ThreadPlace<P>& place,
                                   int tile_m, int tile_n, float (&x)[P::TM][P::TN]) {
  const int columns = p.problem.columns;
#pragma unroll
  for (int i = 0; i < P::TM; ++i) {
    const int m = tile_m + place.row(i);
    if (m >= phase.rows(p.problem)) continue;
    const Out* from = p.x + output_offset(phase, p.x_strides, p.x_access, columns, m);
#pragma unroll
    for (int j = 0; j < P::TN; j += 4) {
      const int n = tile_n + place.column(j);
      if (p.x_access.is_vector && n < columns) {
        const auto four = load_vector<Word4<Out>>(from + n);
#pragma unroll
        for (int q = 0; q < 4; ++q) x[i][j + q] = factor * to_float(four.v[q]);
      } else {
#pragma unroll
        for (int q = 0; q < 4; ++q)
          if (n + q < columns) x[i][j + q] = factor * to_float(from[(n + q) * p.x_strides.c]);
      }
    }
  }
}

// One slab: both operands of a step in registers, then every pair of them. Unrolled over its steps unless the elements of
// one step keep the special function unit busy for longer than a load takes: the compiler would start those of the next
// steps early and put other numbers on the stack for them.
template <class P, class Op, class Word, class X>
ADDERTRAIN_DEVICE void add_slab(const Op& op, const Word* a_tile, const Word* b_tile, const ThreadPlace<P>& place,
                                const X& x, typename Op::Sum (&acc)[P::TM][P::TN]) {
  const Word* at_a = a_tile + place.ty * 4;
  const Word* at_b = b_tile + place.tx * 4;
  [[maybe_unused]] constexpr int kStepsAtOnce = Op::kIsUnrolled ? P::BK : 1;
#pragma unroll kStepsAtOnce
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
      for (int j = 0; j < P::TN; j += 2) {
        const Two<typename Op::Sum> sums{acc[i][j], acc[i][j + 1]};
        const Two<Word> columns{b[j / 4].v[j % 4], b[j / 4].v[j % 4 + 1]};
        const auto next = op.step(sums, a[i / 4].v[i % 4], columns, Two<float>{x(i, j), x(i, j + 1)});
        acc[i][j] = next.first, acc[i][j + 1] = next.second;
      }
  }
}

ADDERTRAIN_DEVICE float add_word(float sum, float word) { return sum + word; }
ADDERTRAIN_DEVICE int32_t add_word(int32_t sum, uint32_t word) { return add_bytes(sum, word); }

// Sums over k of each row, or each column, of the tile: all threads share the adding, then read each other's parts.
template <class P, int kLength, int kPitch, class Word, class Sum>
struct SideSums {
  static constexpr int kQuads = kLength / 4, kParts = P::kThreads / kQuads;
  static_assert(P::kThreads % kQuads == 0 && P::BK % kParts == 0);
  Sum mine[4] = {};

  ADDERTRAIN_DEVICE void add_slab(const Word* tile) {
    const Word* at = tile + threadIdx.x / kQuads * kPitch + threadIdx.x % kQuads * 4;
#pragma unroll
    for (int k = 0; k < P::BK; k += kParts) {
      const auto words = load_vector<Word4<Word>>(at + k * kPitch);
#pragma unroll
      for (int q = 0; q < 4; ++q) mine[q] = add_word(mine[q], words.v[q]);
    }
  }
  ADDERTRAIN_DEVICE void share(Sum* shared) const {
    barrier();  // all threads are done with the tiles
#pragma unroll
    for (int q = 0; q < 4; ++q) shared[threadIdx.x / kQuads * kLength + threadIdx.x % kQuads * 4 + q] = mine[q];
    barrier();
  }
  static ADDERTRAIN_DEVICE Sum total(const Sum* shared, int place) {
    Sum sum = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) sum += shared[part * kLength + place];
    return sum;
  }
};
template <class P, class Op>
using RowSums = SideSums<P, P::BM, P::kPitchA, typename Op::Word, typename Op::Sum>;

struct NoSums {};
template <class P, class Op>
using ColumnSums = std::conditional_t<Op::kIsBytes, SideSums<P, P::BN, P::kPitchB, typename Op::Word, typename Op::Sum>,
                                      NoSums>;  // bytes alone ask for them

// sum |x - w| of sum 2 max(x, w), exact.
template <class P, class Op>
ADDERTRAIN_DEVICE void subtract_operands(const RowSums<P, Op>& x, const ColumnSums<P, Op>& w,
                                         const ThreadPlace<P>& place, int32_t* shared, int32_t (&acc)[P::TM][P::TN]) {
  x.share(shared);
#pragma unroll
  for (int i = 0; i < P::TM; ++i) {
    const int32_t total = x.total(shared, place.row(i));
#pragma unroll
    for (int j = 0; j < P::TN; ++j) acc[i][j] -= total;
  }
  w.share(shared);
#pragma unroll
  for (int j = 0; j < P::TN; ++j) {
    const int32_t total = w.total(shared, place.column(j));
#pragma unroll
    for (int i = 0; i < P::TM; ++i) acc[i][j] -= total;
  }
}

// blockIdx: x tiles, columns first, so that a tile of A comes from memory once; y splits of k; z phases.
template <class P, class Op, bool kVector>
__global__ void __launch_bounds__(P::kThreads, P::kMinBlocks)
    adder_contract_kernel(const __grid_constant__ ContractParams<typename Op::Word, typename Op::Out> p) {
  using Word = typename Op::Word;
  const Op op(p.power);
  const Phase phase(p.problem);
  const int tile_m = blockIdx.x / p.tiles_n * P::BM, tile_n = blockIdx.x % p.tiles_n * P::BN;
  if (tile_m >= phase.rows(p.problem)) return;  // phases differ in size
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
  typename Op::Sum acc[P::TM][P::TN] = {};
  float x[Op::kIsGrad ? P::TM : 1][Op::kIsGrad ? P::TN : 1] = {};  // the third operand stays in registers
  if constexpr (Op::kIsGrad) load_third<P>(Op::kIsSaturated ? 0.5f : 1.0f, p, phase, place, tile_m, tile_n, x);
  auto x_of = [&](int i, int j) { return Op::kIsGrad ? x[i][j] : 0.0f; };

  [[maybe_unused]] RowSums<P, Op> row_sums;
  [[maybe_unused]] ColumnSums<P, Op> column_sums;
  int read = 0, write = P::kStages - 1;
  for (int slab = 0; slab < num_slabs; ++slab) {
    copy_wait<P::kStages - 2>();
    barrier();  // the slab has landed for all, and no thread reads the stage that is overwritten next
    if (slab + P::kStages - 1 < num_slabs) load_slab(write);
    copy_commit();
    const Word* a_tile = shared + read * P::kStageWords;
    if constexpr (Op::kIsSaturated) row_sums.add_slab(a_tile);
    if constexpr (Op::kIsBytes)
      if (has_byte_maxima()) row_sums.add_slab(a_tile), column_sums.add_slab(a_tile + P::BK * P::kPitchA);
    add_slab<P>(op, a_tile, a_tile + P::BK * P::kPitchA, place, x_of, acc);
    read = read + 1 == P::kStages ? 0 : read + 1;
    write = write + 1 == P::kStages ? 0 : write + 1;
  }

  float* const sums = reinterpret_cast<float*>(shared);
  if constexpr (Op::kIsGrad && !Op::kIsSaturated) {  // a power's slope has the factor p
#pragma unroll
    for (int i = 0; i < P::TM; ++i)
#pragma unroll
      for (int j = 0; j < P::TN; ++j) acc[i][j] *= p.power;
  }
  if constexpr (Op::kIsSaturated) {  // dX = 2 sum g*sat - sum g; saturating made 0 of a NaN in x
    row_sums.share(sums);
#pragma unroll
    for (int i = 0; i < P::TM; ++i) {
      const float total = RowSums<P, Op>::total(sums, place.row(i));
#pragma unroll
      for (int j = 0; j < P::TN; ++j) acc[i][j] = x[i][j] == x[i][j] ? 2.0f * acc[i][j] - total : x[i][j];
    }
  }
  if constexpr (Op::kIsBytes)
    if (has_byte_maxima()) subtract_operands<P, Op>(row_sums, column_sums, place, reinterpret_cast<int32_t*>(shared), acc);
  const StagedTile<P::BM, P::BN, P::kThreads> staged{sums};
  barrier();  // all threads are done with the tiles, and with the sums of g
#pragma unroll
  for (int i = 0; i < P::TM; ++i)
#pragma unroll
    for (int j = 0; j < P::TN; j += 4)
      store_vector(&staged.at(place.row(i), place.column(j)),
                   Floats4{to_float(acc[i][j]), to_float(acc[i][j + 1]), to_float(acc[i][j + 2]),
                           to_float(acc[i][j + 3])});
  barrier();
  staged.write(p, phase, tile_m, tile_n);
}

}  // namespace addertrain
