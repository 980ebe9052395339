// Launches sums of squares (device/squares.h): as many tensors of one type at a time as a kernel's parameters hold.
#include "device/squares.h"

#include <algorithm>

#include "csrc/cuda/blocks.h"
#include "csrc/cuda/squares.h"

namespace addertrain::cuda {
namespace {

int64_t num_pieces(const SquaredTensor& t) { return quotient_up(t.count, kSquaresPiece); }

cudaError_t launch_pieces(Type type, const SquaresParams& params, cudaStream_t stream) {
  const auto kernel = [type] {
    switch (type) {
      case Type::kFloat64: return adder_squares_kernel<double>;
      case Type::kFloat32: return adder_squares_kernel<float>;
      case Type::kFloat16: return adder_squares_kernel<__half>;
      default: return adder_squares_kernel<__nv_bfloat16>;
    }
  }();
  const unsigned blocks = params.first_piece[params.num_tensors];
  if (blocks == 0) return cudaSuccess;  // all are empty
  return launch(kernel, dim3(blocks), kSquaresThreads, kSquaresThreads * 8, stream, params);
}

}  // namespace

int64_t workspace_bytes(const SquaresCall& call) {
  int64_t pieces = 0;
  for (const SquaredTensor& t : call.tensors) pieces += num_pieces(t);
  return 8 * std::max<int64_t>(1, pieces);
}

cudaError_t sums_of_squares_cuda(const SquaresCall& call, void* workspace, cudaStream_t stream) {
  const size_t count = call.tensors.size();
  for (size_t first = 0; first < count;) {
    SquaresParams params{};
    params.pieces = static_cast<double*>(workspace), params.sums = call.sums + first;
    const Type type = call.tensors[first].type;
    int n = 0;
    for (; n < kMostSquared && first + n < count && call.tensors[first + n].type == type; ++n) {
      const SquaredTensor& t = call.tensors[first + n];
      params.values[n] = t.values, params.counts[n] = t.count;
      params.are_aligned[n] = reinterpret_cast<uintptr_t>(t.values) % 16 == 0;
      params.first_piece[n + 1] = params.first_piece[n] + static_cast<int>(num_pieces(t));
    }
    params.num_tensors = n;
    cudaError_t error = launch_pieces(type, params, stream);
    if (error != cudaSuccess) return error;
    error = launch(adder_squares_sum_kernel, dim3(n), kSquaresThreads, kSquaresThreads * 8, stream, params);
    if (error != cudaSuccess) return error;
    first += n;
  }
  return cudaSuccess;
}

}  // namespace addertrain::cuda
