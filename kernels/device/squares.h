// Sums of squares of many tensors in two passes without atomics: pieces of each, then a tensor's pieces in order.
//
// Bound by memory on every GPU, those too that add float64 at a 64th of their rate: two such instructions for each 2 to 8
// bytes. The sums' order depends on a tensor's size alone, not on where it begins in memory.
#pragma once

#include "device/platform.h"

namespace addertrain {

constexpr int kSquaresThreads = 256;
constexpr int kSquaresPiece = 64 * kSquaresThreads;  // values of a block
constexpr int kMostSquared = 64;                     // tensors of a launch: what goes with its parameters

struct SquaresParams {
  const void* values[kMostSquared];
  int64_t counts[kMostSquared];
  bool are_aligned[kMostSquared];     // to 16 bytes
  int first_piece[kMostSquared + 1];  // of a tensor; the last one: how many pieces there are
  int num_tensors;
  double* pieces;                     // workspace
  double* sums;                       // a tensor's
};

ADDERTRAIN_DEVICE double square(double v) { return v * v; }
template <class T>
ADDERTRAIN_DEVICE double square(T v) {
  return square(double{to_float(v)});
}

template <class T>
struct alignas(16) SquaresVector {
  static constexpr int kWidth = 16 / sizeof(T);
  T v[kWidth];
};

// The sum of a block's numbers, for thread 0.
ADDERTRAIN_DEVICE double block_sum(double own) {
  double* const shared = reinterpret_cast<double*>(dynamic_shared());
  shared[threadIdx.x] = own;
  for (unsigned half = kSquaresThreads / 2; half > 0; half /= 2) {
    barrier();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  return shared[0];
}

// One piece: neighbouring threads take neighbouring vectors.
template <class T>
__global__ void __launch_bounds__(kSquaresThreads) adder_squares_kernel(const __grid_constant__ SquaresParams p) {
  using Vector = SquaresVector<T>;
  int tensor = 0;
  while (static_cast<int>(blockIdx.x) >= p.first_piece[tensor + 1]) ++tensor;
  const int64_t begin = int64_t{kSquaresPiece} * (static_cast<int>(blockIdx.x) - p.first_piece[tensor]);
  const int64_t end = min(p.counts[tensor], begin + kSquaresPiece);
  const T* const values = static_cast<const T*>(p.values[tensor]);
  double sum = 0.0;
  for (int64_t i = begin + threadIdx.x * Vector::kWidth; i < end; i += kSquaresThreads * Vector::kWidth) {
    if (p.are_aligned[tensor] && i + Vector::kWidth <= end) {
      const auto some = load_vector<Vector>(values + i);
#pragma unroll
      for (int q = 0; q < Vector::kWidth; ++q) sum += square(some.v[q]);
    } else {
      for (int64_t at = i; at < min(end, i + Vector::kWidth); ++at) sum += square(values[at]);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) p.pieces[blockIdx.x] = sum;
}

// A block adds up the pieces of one tensor.
__global__ void __launch_bounds__(kSquaresThreads) adder_squares_sum_kernel(const __grid_constant__ SquaresParams p) {
  double sum = 0.0;
  for (int i = p.first_piece[blockIdx.x] + threadIdx.x; i < p.first_piece[blockIdx.x + 1]; i += kSquaresThreads)
    sum += p.pieces[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
}

}  // namespace addertrain
