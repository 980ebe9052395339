// Second passes over what several blocks wrote, in a fixed order: slices of k, and tiles of a channel's statistics.
#pragma once

#include "device/epilogue.h"

namespace addertrain {

template <class Out>
struct SplitParams {
  Problem problem;
  Epilogue<Out> epilogue;  // `partial` holds [split][position][column]
  Out* out;
  int64_t size;            // outputs
  int splits;
};

// The slices of an output in the order of k, then the epilogue.
template <class Out>
__global__ void __launch_bounds__(kSplitLanes* kSplitSlots)
    adder_split_kernel(const __grid_constant__ SplitParams<Out> p) {
  const int slot = threadIdx.x / kSplitLanes, n = blockIdx.y * kSplitLanes + threadIdx.x % kSplitLanes;
  if (n >= p.problem.columns) return;
  const int64_t first = int64_t{blockIdx.x} * kSplitRows + slot, positions = p.size / p.problem.columns;
  constexpr int kRows = kSplitRows / kSplitSlots;
  float sums[kRows];
  Moments moments(p.epilogue.column[n]);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t position = first + i * kSplitSlots;
    if (position >= positions) break;
    float sum = 0.0f;
    for (int split = 0; split < p.splits; ++split)
      sum += p.epilogue.partial[split * p.size + position * p.problem.columns + n];
    const int64_t row = position / p.problem.out_w;
    const int64_t at = row / p.problem.out_h * p.problem.out.n + row % p.problem.out_h * p.problem.out.h +
                       position % p.problem.out_w * p.problem.out.w + n * p.problem.out.c;
    p.out[at] = evaluate(p.epilogue, sum + p.epilogue.column[n], n, at);
    moments.add(sums[i] = sum);
  }
  if (!p.epilogue.statistics) return;
  moments.centre();
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (i < moments.count) moments.add_square(sums[i]);
  moments.store(p.epilogue.statistics, blockIdx.x * kSplitSlots + slot, p.problem.columns, n);
}

constexpr int kStatisticsColumns = 32, kStatisticsRows = 8;

struct StatisticsParams {
  const float* parts;  // [tile][slot][sum, sum of squares about its mean][column]
  int rows, tile_rows, slots, columns;
  double* sums;        // [sum, sum of squares][column]
};

// A block adds kColumns columns; each of a column's kRows threads takes every kRows-th part, in order. In float64 a part's
// squares about its mean become squares about 0: S + (sum)^2 / count.
template <int kColumns, int kRows>
__global__ void __launch_bounds__(kColumns* kRows) adder_statistics_kernel(const __grid_constant__ StatisticsParams p) {
  double* shared = reinterpret_cast<double*>(dynamic_shared());
  const int lane = threadIdx.x % kColumns, first = threadIdx.x / kColumns;
  const int n = blockIdx.x * kColumns + lane;
  const int num_parts = (p.rows + p.tile_rows - 1) / p.tile_rows * p.slots;
  double sum = 0.0, squares = 0.0;
  if (n < p.columns)
    for (int part = first; part < num_parts; part += kRows) {
      const int rows = min(p.rows - part / p.slots * p.tile_rows, p.tile_rows), slot = part % p.slots;
      if (slot >= rows) continue;
      const int count = (rows - slot + p.slots - 1) / p.slots;
      const float* at = p.parts + int64_t{2} * part * p.columns + n;
      const double part_sum = at[0];
      sum += part_sum, squares += at[p.columns] + part_sum * part_sum / count;
    }
  shared[threadIdx.x] = sum, shared[kColumns * kRows + threadIdx.x] = squares;
  barrier();
  if (first != 0 || n >= p.columns) return;
  for (int other = 1; other < kRows; ++other)
    sum += shared[other * kColumns + lane], squares += shared[(kRows + other) * kColumns + lane];
  p.sums[n] = sum, p.sums[p.columns + n] = squares;
}

}  // namespace addertrain
