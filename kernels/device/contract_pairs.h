// The adder layer's contraction in 16 bits: the CUDA cores only form elements, two an instruction, and the tensor cores
// add them up in float32.
//
// A warp forms 16 columns x 16 steps of ONE position in the layout of mma's first operand (k may be permuted freely, so
// each lane takes 16 contiguous bytes). The second operand is zero but for that position's column: ones in the forward,
// g in the input gradient. Eight positions fill the eight columns of one accumulator: a register an output, exact
// products, no float16 sums. Sum x (sum g) comes from one more mma for eight positions, with ones as elements.
//
// The gradient's elements are float16 for both types. A bfloat16 dY goes to float16 times a power of two (scale.h), one
// word in registers for eight positions' elements.
//
// A -inf in x makes min(x, w) infinite, and zero times infinity is NaN: in 16 bits it spreads to its eight neighbours.
#pragma once

#include <type_traits>

#include "device/epilogue.h"
#include "device/pair_loaders.h"

namespace addertrain {

// Where a thread's sums lie: acc[g][b][2*i + j] is column b*16 + 8*i + row and position g*8 + 2*quad + j of the warp.
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

// What elements are formed and added up in, and whether dY has to be scaled into it.
template <class T, bool kIsGrad>
using ElementType = std::conditional_t<kIsGrad, __half, T>;
template <class T, bool kIsGrad>
constexpr bool kIsScaled = !std::is_same_v<T, ElementType<T, kIsGrad>>;

// x/2 of the warp's positions and columns, for the lane's rows: two columns a word, 8 apart.
template <class P, class T>
struct HalvedX {
  uint32_t v[P::WM][P::WN / 16] = {};

  ADDERTRAIN_DEVICE void load(const ContractParams<uint16_t, T>& p, const Phase& phase, const WarpPlace<P>& place,
                              int tile_m, int tile_n) {
    const int rows = phase.rows(p.problem);
#pragma unroll
    for (int i = 0; i < P::WM; ++i) {
      const int m = tile_m + place.warp_m + i;
      const T* from = p.x + (m < rows ? output_offset(phase, p.x_strides, p.x_access, p.problem.columns, m) : 0);
#pragma unroll
      for (int block = 0; block < P::WN / 16; ++block) {
        float pair[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int n = tile_n + place.column(block, j);
          pair[j] = m < rows && n < p.problem.columns ? 0.5f * to_float(from[n * p.x_strides.c]) : 0.0f;
        }
        v[i][block] = pack_pair<__half>(pair[0], pair[1]);  // past 131040 infinite: sat gives 0 or 1
      }
    }
  }
};

// One slab: eight positions at a time, each against all of the warp's columns.
template <class P, class T, bool kIsGrad, class X>
ADDERTRAIN_DEVICE void add_pair_slab(const uint16_t* a_tile, const uint16_t* b_tile, const WarpPlace<P>& place,
                                     const X& x, float g_scale, const uint32_t (&select)[8], Sums<P>& acc,
                                     float (&a_sum)[P::WM / 8][4]) {
  using Ops = PairOps<ElementType<T, kIsGrad>>;
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
    Words4 mine = load_vector<Words4>(at_a + (group * 8 + place.row) * P::kSlab);  // position `row`
    if constexpr (kIsGrad)
#pragma unroll
      for (uint32_t& word : mine.v) word = gradient_pair<T>(word, g_scale);
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

// blockIdx: x tiles, columns first, so that a tile of A comes from memory once; y splits of k; z phases.
template <class P, class T, bool kIsGrad, bool kVector>
__global__ void __launch_bounds__(P::kThreads, P::kMinBlocks)
    adder_contract_pairs_kernel(const __grid_constant__ ContractParams<uint16_t, T> p) {
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
  filters.init(p.b + blockIdx.z * p.b_phase, p.b_pitch, tile_n, p.problem.columns, first * P::kSlab);
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
  Scale g_scale{1.0f, 1.0f};
  if constexpr (kIsScaled<T, kIsGrad>) g_scale = *p.g_scale;
  [[maybe_unused]] HalvedX<P, T> x;
  if constexpr (kIsGrad) x.load(p, phase, place, tile_m, tile_n);

  int read = 0, write = P::kStages - 1;
  for (int slab = 0; slab < num_slabs; ++slab) {
    copy_wait<P::kStages - 2>();
    barrier();  // the slab has landed for all, and no thread reads the stage that is overwritten next
    if (slab + P::kStages - 1 < num_slabs) load_slab(write);
    copy_commit();
    const uint16_t* a_tile = stages + read * P::kStageElements;
    add_pair_slab<P, T, kIsGrad>(a_tile, a_tile + P::BM * P::kSlab, place, x, g_scale.there, select, acc, a_sum);
    read = read + 1 == P::kStages ? 0 : read + 1;
    write = write + 1 == P::kStages ? 0 : write + 1;
  }

  // 2 sum min - sum x, or 2 sum g*sat - sum g, where saturating made 0 of a NaN in x.
  const StagedTile<P::BM, P::BN, P::kThreads> staged{reinterpret_cast<float*>(shared)};
  barrier();  // all threads are done with the tiles
#pragma unroll
  for (int group = 0; group < P::WM / 8; ++group)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int m = tile_m + place.position(group, j);
      const T* own_x = nullptr;
      if (kIsGrad && m < phase.rows(p.problem))
        own_x = p.x + output_offset(phase, p.x_strides, p.x_access, p.problem.columns, m);
#pragma unroll
      for (int block = 0; block < P::WN / 16; ++block)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float sum = (2.0f * acc[group][block][2 * i + j] - a_sum[group][j]) * g_scale.back;
          const int n = tile_n + place.column(block, i);
          if (kIsGrad && own_x && n < p.problem.columns) {
            const float v = to_float(own_x[n * p.x_strides.c]);
            sum = v == v ? sum : v;
          }
          staged.at(place.position(group, j), place.column(block, i)) = sum;
        }
    }
  barrier();
  staged.write(p, phase, tile_m, tile_n);
}

}  // namespace addertrain
