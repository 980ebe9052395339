// The adder layer's contraction in 16 bits: the CUDA cores only form elements, two an instruction, and the tensor cores
// add them up in float32.
//
// A warp forms 16 columns x 16 steps of ONE position in the layout of mma's first operand (k may be permuted freely, so
// each lane takes 16 contiguous bytes). The second operand is zero but for that position's column: ones in the forward,
// g in the input gradient. Eight positions fill the eight columns of one accumulator: a register an output, exact
// products, no float16 sums. Sum x (sum g) comes from one more mma for eight positions, with ones as elements.
//
// A -inf in x makes min(x, w) infinite, and zero times infinity is NaN: in 16 bits it spreads to its eight neighbours.
#pragma once

#include "device/epilogue.h"
#include "device/pair_loaders.h"

namespace addertrain {

template <class T>
struct PairParams {
  Problem problem;
  const uint16_t* a;
  const uint16_t* b;      // packed, [phase][column][steps]
  const T* x;             // input gradient: where HT is taken
  T* out;
  ImageStrides x_strides;
  Epilogue<T> epilogue;
  int64_t b_phase;        // elements of B a phase
  int b_steps;
  int tiles_n, slabs_per_split;
  int64_t split_size;     // outputs
  bool is_vector_out;     // eight columns lie side by side and aligned
};

// Where a thread's accumulators lie: acc[g][n][2*i + j] is column n*16 + 8*i + row, position g*8 + 2*quad + j of the warp.
template <class P>
struct WarpPlace {
  static constexpr int kGroups = P::WM / 8, kBlocks = P::WN / 16;
  int row, quad, warp_m, warp_n;

  ADDERTRAIN_DEVICE WarpPlace() {
    const int warp = threadIdx.x / 32;
    row = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    warp_m = warp / P::kWarpsN * P::WM, warp_n = warp % P::kWarpsN * P::WN;
  }
  ADDERTRAIN_DEVICE int position(int group, int j) const { return warp_m + group * 8 + quad * 2 + j; }
  ADDERTRAIN_DEVICE int column(int block, int i) const { return warp_n + block * 16 + i * 8 + row; }
};

template <class P>
using Sums = float[WarpPlace<P>::kGroups][WarpPlace<P>::kBlocks][4];

// Calls visit(group, block, q, position, column) for every output of the thread, both within the tile.
template <class P, class Visit>
ADDERTRAIN_DEVICE void for_each_sum(const WarpPlace<P>& place, Visit visit) {
#pragma unroll
  for (int group = 0; group < WarpPlace<P>::kGroups; ++group)
#pragma unroll
    for (int block = 0; block < WarpPlace<P>::kBlocks; ++block)
#pragma unroll
      for (int q = 0; q < 4; ++q) visit(group, block, q, place.position(group, q % 2), place.column(block, q / 2));
}

// x/2 of the warp's positions and columns, for the lane's rows: two columns a word, 8 apart.
template <class P, class T>
struct HalvedX {
  uint32_t v[P::WM][P::WN / 16] = {};

  ADDERTRAIN_DEVICE void load(const PairParams<T>& p, const Phase& phase, const WarpPlace<P>& place, int tile_m,
                              int tile_n) {
    const int rows = phase.rows(p.problem);
#pragma unroll
    for (int i = 0; i < P::WM; ++i) {
      const int m = tile_m + place.warp_m + i;
      const T* from = p.x + (m < rows ? output_offset(phase, p.x_strides, m) : 0);
#pragma unroll
      for (int block = 0; block < P::WN / 16; ++block) {
        float pair[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int n = tile_n + place.column(block, j);
          pair[j] = m < rows && n < p.problem.columns ? 0.5f * to_float(from[n * p.x_strides.c]) : 0.0f;
        }
        v[i][block] = pack_pair<T>(pair[0], pair[1]);
      }
    }
  }
};

// One slab: eight positions at a time, each against all of the warp's columns.
template <class P, class T, bool kIsGrad, class X>
ADDERTRAIN_DEVICE void add_pair_slab(const uint16_t* a_tile, const uint16_t* b_tile, const WarpPlace<P>& place, const X& x,
                                const uint32_t (&select)[8], Sums<P>& acc, float (&a_sum)[P::WM / 8][4]) {
  using Ops = PairOps<T>;
  constexpr int kBlocks = P::WN / 16;
  const uint16_t* at_a = a_tile + place.warp_m * P::kSlab + place.quad * P::kChunk;
  const uint16_t* at_b = b_tile + (place.warp_n + place.row) * P::kSlab + place.quad * P::kChunk;
  Words4 w[kBlocks][2];
#pragma unroll
  for (int block = 0; block < kBlocks; ++block)
#pragma unroll
    for (int i = 0; i < 2; ++i) w[block][i] = load_vector<Words4>(at_b + (block * 16 + i * 8) * P::kSlab);
#pragma unroll
  for (int group = 0; group < P::WM / 8; ++group) {
    const Words4 mine = load_vector<Words4>(at_a + (group * 8 + place.row) * P::kSlab);  // position `row`
    const uint32_t ones[4] = {Ops::kOnes, Ops::kOnes, Ops::kOnes, Ops::kOnes};
#pragma unroll
    for (int h = 0; h < 2; ++h) Ops::mma(a_sum[group], ones, mine.v[2 * h], mine.v[2 * h + 1]);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      Words4 at = mine;
      if constexpr (!kIsGrad) at = load_vector<Words4>(at_a + (group * 8 + j) * P::kSlab);  // the same for all rows
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint32_t low = kIsGrad ? mine.v[2 * h] & select[j] : select[j];
        const uint32_t high = kIsGrad ? mine.v[2 * h + 1] & select[j] : select[j];
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          uint32_t elements[4];  // (row, k), (row + 8, k), (row, k + 8), (row + 8, k + 8)
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const uint32_t f = w[block][q % 2].v[2 * h + q / 2];
            if constexpr (!kIsGrad)
              elements[q] = Ops::minimum(at.v[2 * h + q / 2], f);
            else if (q % 2 == 0)
              elements[q] = Ops::template saturated_difference<false>(f, x.v[group * 8 + j][block]);
            else
              elements[q] = Ops::template saturated_difference<true>(f, x.v[group * 8 + j][block]);
          }
          Ops::mma(acc[group][block], elements, low, high);
        }
      }
    }
  }
}

// The response's sum and sum of squares for each column of the tile.
template <class P>
ADDERTRAIN_DEVICE void write_pair_statistics(const Sums<P>& y, const WarpPlace<P>& place, int rows_left, float* shared,
                                        float* tile_statistics, int tile_n, int columns) {
  constexpr int kSlots = P::kWarpsM * 4;
  static_assert(2 * kSlots * P::BN * 4 <= P::kSharedBytes);
  const ColumnStatistics<kSlots, P::BN> statistics{shared};
  barrier();  // everybody is done with the tiles
#pragma unroll
  for (int block = 0; block < P::WN / 16; ++block)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = 0.0f, squares = 0.0f;
#pragma unroll
      for (int group = 0; group < P::WM / 8; ++group)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float v = place.position(group, j) < rows_left ? y[group][block][2 * i + j] : 0.0f;
          sum += v, squares = fmaf(v, v, squares);
        }
      statistics.put(place.warp_m / P::WM * 4 + place.quad, place.column(block, i), sum, squares);
    }
  barrier();
  statistics.write(tile_statistics, tile_n, columns, P::kThreads);
}

// Results through shared memory, so that they leave 16 bytes a thread.
template <class P, class T>
ADDERTRAIN_DEVICE void store_rows(const PairParams<T>& p, const Phase& phase, const T* tile, int tile_m, int tile_n) {
  constexpr int kChunks = P::BN / P::kChunk;
  const int rows = phase.rows(p.problem);
  for (int i = threadIdx.x; i < P::BM * kChunks; i += P::kThreads) {
    const int m = tile_m + i / kChunks, n = tile_n + i % kChunks * P::kChunk;
    if (m < rows && n < p.problem.columns)
      store_vector(p.out + output_offset(phase, p.problem.out, m) + n, load_vector<Words4>(tile + i * P::kChunk));
  }
}

template <class P, class T>
ADDERTRAIN_DEVICE void store_pair_tile(const PairParams<T>& p, const Phase& phase, const WarpPlace<P>& place, int tile_m,
                                  int tile_n, Sums<P>& acc, unsigned char* shared) {
  const Problem& problem = p.problem;
  const int rows = phase.rows(problem);
  if (p.epilogue.partial) {
    float* slice = p.epilogue.partial + blockIdx.y * p.split_size;
    for_each_sum(place, [&](int group, int block, int q, int position, int column) {
      const int m = tile_m + position, n = tile_n + column;
      if (m < rows && n < problem.columns)
        slice[output_number(problem, phase, m) * problem.columns + n] = acc[group][block][q];
    });
    return;
  }
  static_assert(P::BM * P::BN * 2 <= P::kSharedBytes);
  T* staged = reinterpret_cast<T*>(shared);
  barrier();  // everybody is done with the tiles
  for_each_sum(place, [&](int group, int block, int q, int position, int column) {
    const int m = tile_m + position, n = tile_n + column;
    if (m >= rows || n >= problem.columns) return;
    float& sum = acc[group][block][q];
    sum = p.epilogue.response(sum, n);
    const int64_t at = output_offset(phase, problem.out, m) + n * problem.out.c;
    const T y = p.epilogue.result(sum, n, at);
    if (p.is_vector_out) staged[position * P::BN + column] = y;
    else p.out[at] = y;
  });
  barrier();
  if (p.is_vector_out) store_rows<P>(p, phase, staged, tile_m, tile_n);
  if (p.epilogue.statistics)
    write_pair_statistics<P>(acc, place, rows - tile_m, reinterpret_cast<float*>(shared),
                        p.epilogue.statistics + int64_t{2} * (tile_m / P::BM) * problem.columns, tile_n,
                        problem.columns);
}

// blockIdx: x tiles, columns first, so that a tile of A comes from memory once; y splits of k; z phases.
template <class P, class T, bool kIsGrad, bool kVector>
__global__ void __launch_bounds__(P::kThreads, P::kMinBlocks)
    adder_contract_pairs_kernel(const __grid_constant__ PairParams<T> p) {
  const Phase phase(p.problem);
  const int tile_m = blockIdx.x / p.tiles_n * P::BM, tile_n = blockIdx.x % p.tiles_n * P::BN;
  if (tile_m >= phase.rows(p.problem)) return;  // phases differ in size
  const int first = blockIdx.y * p.slabs_per_split;
  const int num_slabs = min((phase.depth(p.problem) + P::kSlab - 1) / P::kSlab - first, p.slabs_per_split);

  unsigned char* const shared = dynamic_shared();
  uint16_t* const stages = reinterpret_cast<uint16_t*>(shared);
  PairPositionLoader<P, kVector> positions;
  PairFilterLoader<P> filters;
  positions.init(p.problem, phase, p.a, tile_m, first * P::kSlab);
  filters.init(p.b + blockIdx.z * p.b_phase, p.b_steps, tile_n, p.problem.columns, first * P::kSlab);
  auto load_slab = [&](int stage) {
    positions.load(p.problem, phase, stages + stage * P::kStageElements);
    filters.load(stages + stage * P::kStageElements + P::BM * P::kSlab);
  };
#pragma unroll
  for (int stage = 0; stage < P::kStages - 1; ++stage) {
    if (stage < num_slabs) load_slab(stage);
    copy_commit();
  }

  const WarpPlace<P> place;
  Sums<P> acc = {};
  float a_sum[P::WM / 8][4] = {};
  uint32_t select[8];  // forward: ones for the lane's own column; gradient: a mask for it
#pragma unroll
  for (int j = 0; j < 8; ++j) select[j] = place.row == j ? (kIsGrad ? ~0u : PairOps<T>::kOnes) : 0u;
  [[maybe_unused]] HalvedX<P, T> x;
  if constexpr (kIsGrad) x.load(p, phase, place, tile_m, tile_n);

  int read = 0, write = P::kStages - 1;
  for (int slab = 0; slab < num_slabs; ++slab) {
    copy_wait<P::kStages - 2>();
    barrier();  // the slab has landed for all, and nobody reads the stage that is overwritten next
    if (slab + P::kStages - 1 < num_slabs) load_slab(write);
    copy_commit();
    const uint16_t* a_tile = stages + read * P::kStageElements;
    add_pair_slab<P, T, kIsGrad>(a_tile, a_tile + P::BM * P::kSlab, place, x, select, acc, a_sum);
    read = read + 1 == P::kStages ? 0 : read + 1;
    write = write + 1 == P::kStages ? 0 : write + 1;
  }

  // 2 sum min - sum x, or 2 sum g*sat - sum g, where saturating made 0 of a NaN in x.
  for_each_sum(place, [&](int group, int block, int q, int position, int column) {
    float& sum = acc[group][block][q];
    sum = 2.0f * sum - a_sum[group][q % 2];
    const int m = tile_m + position, n = tile_n + column;
    if (!kIsGrad || m >= phase.rows(p.problem) || n >= p.problem.columns) return;
    const float own_x = to_float(p.x[output_offset(phase, p.x_strides, m) + n * p.x_strides.c]);
    if (own_x != own_x) sum = own_x;
  });
  store_pair_tile<P>(p, phase, place, tile_m, tile_n, acc, shared);
}

}  // namespace addertrain
