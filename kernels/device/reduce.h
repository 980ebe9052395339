// Second passes over what several blocks wrote, in a fixed order: slices of k, and tiles of a channel's statistics.
#pragma once

#include "device/epilogue.h"

namespace addertrain {

constexpr int kReduceThreads = 256;

template <class Out>
struct SplitParams {
  Problem problem;
  Epilogue<Out> epilogue;  // `partial` holds [split][position][column]
  Out* out;
  int64_t size;            // outputs
  int splits;
};

// One thread an output: its slices in the order of k, then the epilogue.
template <class Out>
__global__ void __launch_bounds__(kReduceThreads) adder_split_kernel(const __grid_constant__ SplitParams<Out> p) {
  const int64_t i = int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
  if (i >= p.size) return;
  float sum = 0.0f;
  for (int split = 0; split < p.splits; ++split) sum += p.epilogue.partial[split * p.size + i];
  const int n = static_cast<int>(i % p.problem.columns);
  const int64_t position = i / p.problem.columns, row = position / p.problem.out_w;
  const int64_t at = row / p.problem.out_h * p.problem.out.n + row % p.problem.out_h * p.problem.out.h +
                     position % p.problem.out_w * p.problem.out.w + n * p.problem.out.c;
  p.out[at] = evaluate(p.epilogue, sum + p.epilogue.column[n], n, at);
}

constexpr int kStatisticsColumns = 32, kStatisticsRows = 8;

struct StatisticsParams {
  const float* parts;  // [part][sum, sum of squares][column], of each tile's slots
  int num_parts, columns;
  double* sums;        // [sum, sum of squares][column]
};

// A block adds kColumns columns of one power; kRows threads a column take every so manieth part, in order.
template <int kColumns, int kRows>
__global__ void __launch_bounds__(kColumns* kRows) adder_statistics_kernel(const __grid_constant__ StatisticsParams p) {
  double* shared = reinterpret_cast<double*>(dynamic_shared());
  const int lane = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  const int n = blockIdx.x * kColumns + lane, power = blockIdx.y;
  double sum = 0.0;
  if (n < p.columns)
    for (int part = row; part < p.num_parts; part += kRows)
      sum += p.parts[(int64_t{2} * part + power) * p.columns + n];
  shared[threadIdx.x] = sum;
  barrier();
  if (row != 0 || n >= p.columns) return;
  for (int other = 1; other < kRows; ++other) sum += shared[other * kColumns + lane];
  p.sums[power * p.columns + n] = sum;
}

}  // namespace addertrain
