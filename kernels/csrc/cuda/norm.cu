// Launches batch normalisation with ReLU on channels-last images (device/norm.h).
#include "device/norm.h"

#include <algorithm>
#include <initializer_list>

#include "csrc/cuda/norm.h"
#include "csrc/cuda/passes.h"

namespace addertrain::cuda {
namespace {

constexpr int kRowsAThread = 16;
constexpr int64_t kMostParts = 128;  // of a column's sums in the gradient

// From sizes alone, as everywhere: the same call gives the same sums on every GPU.
NormShape shape_of(const NormCall& call, int width, int64_t fewest_rows = 0) {
  int lanes = 1;
  while (lanes < kNormLanes && lanes * width < call.columns) lanes *= 2;
  const int64_t rows_per_block = kRowsAThread * (kNormThreads / lanes);
  return {call.rows, std::max(rows_per_block, fewest_rows), call.columns, lanes};
}

// Rows along x, which holds 2^31 - 1 blocks where the others hold 65535.
dim3 grid_of(const NormShape& shape, int width) {
  return dim3(num_blocks(shape.rows, shape.rows_per_block), num_blocks(shape.columns, shape.lanes * width));
}

// Of the workspace: a column's four numbers, and behind them the gradient's parts.
NormColumns columns_of(const NormCall& call, float* workspace) {
  const int64_t n = call.columns;
  return {call.mean, call.var, workspace, workspace + n, workspace + 2 * n, workspace + 3 * n};
}

cudaError_t launch_statistics(const NormCall& call, const double* sums, const NormColumns& columns,
                              cudaStream_t stream) {
  const NormStatisticsParams params{sums, call.weight, call.bias, double(call.rows), call.eps, call.columns, columns};
  return launch(adder_norm_statistics_kernel, dim3(num_blocks(call.columns, kNormThreads)), kNormThreads, 0, stream,
                params);
}

template <class T, int kWidth>
cudaError_t run(const NormForwardCall& call, float* workspace, cudaStream_t stream) {
  const NormColumns columns = columns_of(call, workspace);
  const cudaError_t error = launch_statistics(call, call.sums, columns, stream);
  if (error != cudaSuccess) return error;
  const NormShape shape = shape_of(call, kWidth);
  const NormParams<T> params{shape,   columns, static_cast<const T*>(call.x), nullptr, static_cast<T*>(call.y),
                             nullptr, call.relu};
  return launch(adder_norm_apply_kernel<T, kWidth>, grid_of(shape, kWidth), kNormThreads, 0, stream, params);
}

template <class T, int kWidth>
cudaError_t run(const NormBackwardCall& call, float* workspace, cudaStream_t stream) {
  const NormColumns columns = columns_of(call, workspace);
  cudaError_t error = launch_statistics(call, nullptr, columns, stream);
  if (error != cudaSuccess) return error;
  NormParams<T> params{shape_of(call, kWidth, quotient_up(call.rows, kMostParts)),
                       columns,
                       static_cast<const T*>(call.x),
                       static_cast<const T*>(call.dy),
                       static_cast<T*>(call.dx),
                       workspace + int64_t{4} * call.columns,
                       call.relu};
  const dim3 grid = grid_of(params.shape, kWidth);
  error = launch(adder_norm_gradient_sums_kernel<T, kWidth>, grid, kNormThreads, kNormThreads * 2 * kWidth * 4, stream,
                 params);
  if (error != cudaSuccess) return error;
  const NormGradientParams sums{params.parts, static_cast<int>(grid.x), call.columns, double(call.rows), call.eps,
                                call.weight,  columns,                  call.dweight, call.dbias};
  error = launch(adder_norm_gradient_columns_kernel, dim3(num_blocks(call.columns, kNormLanes)), kNormThreads,
                 2 * kNormThreads * 8, stream, sums);
  if (error != cudaSuccess) return error;
  params.shape = shape_of(call, kWidth);
  return launch(adder_norm_gradient_kernel<T, kWidth>, grid_of(params.shape, kWidth), kNormThreads, 0, stream, params);
}

template <class T, class Call>
cudaError_t run_vectors(const Call& call, std::initializer_list<const void*> images, float* workspace,
                        cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool is_vector = call.columns % kWidth == 0 && std::ranges::all_of(images, [](const void* image) {
    return reinterpret_cast<uintptr_t>(image) % 16 == 0;
  });
  return is_vector ? run<T, kWidth>(call, workspace, stream) : run<T, 1>(call, workspace, stream);
}

template <class Call>
cudaError_t run_type(const Call& call, std::initializer_list<const void*> images, void* workspace,
                     cudaStream_t stream) {
  float* const floats = static_cast<float*>(workspace);
  switch (call.type) {
    case Type::kFloat32: return run_vectors<float>(call, images, floats, stream);
    case Type::kFloat16: return run_vectors<__half>(call, images, floats, stream);
    case Type::kBfloat16: return run_vectors<__nv_bfloat16>(call, images, floats, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace

int64_t workspace_bytes(const NormForwardCall& call) { return int64_t{4} * 4 * call.columns; }

int64_t workspace_bytes(const NormBackwardCall& call) { return (4 + 2 * kMostParts) * 4 * call.columns; }

cudaError_t batch_norm_relu_of_sums_cuda(const NormForwardCall& call, void* workspace, cudaStream_t stream) {
  return run_type(call, {call.x, call.y}, workspace, stream);
}

cudaError_t batch_norm_relu_backward_cuda(const NormBackwardCall& call, void* workspace, cudaStream_t stream) {
  return run_type(call, {call.x, call.dy, call.dx}, workspace, stream);
}

}  // namespace addertrain::cuda
