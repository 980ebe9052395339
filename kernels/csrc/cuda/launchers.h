// What the torch side asks of the launchers, in plain C++ types: nvcc reads no torch header (10 s against 3 s a file)
// and the host compiler no kernel.
#pragma once

#include <cuda_runtime_api.h>

#include "device/layer.h"

namespace addertrain::cuda {

enum class Type { kFloat64, kFloat32, kFloat16, kBfloat16 };

// Device pointers of one type, any strides.
struct Image {
  const void* data;
  ImageStrides strides;
};

struct Result {
  void* data;
  ImageStrides strides;
};

// After the response, in this order: y = relu(response * scale[o] + shift[o] + residual), the parts that are there.
struct Evaluation {
  const float* scale;    // and shift, [O], or null
  const float* shift;
  const void* residual;  // with the strides of y, or null
  bool relu;
};

// `layer` holds the sizes of one of the layer's groups.
struct ForwardCall {
  Layer layer;
  Type type;
  Image x, w;
  Result y;
  bool offset_free;
  Evaluation evaluation;
  double* sums;  // [2][O]: the response's sum and sum of squares per filter, or null
  int64_t groups = 1;  // with more than one neither `evaluation` nor `sums`
  double power = 1.0;  // of the distance; other than 1 neither of them
};

struct GradInputCall {
  Layer layer;
  Type type;
  Image dy, x, w;
  Result dx;
  int64_t groups = 1;
  double power = 1.0;
};

// uint8 images and filters, int32 sums of |x - w|.
struct DistanceCall {
  Layer layer;
  Image x, w;
  Result y;
};

// Whether tiles serve the call; only they know `evaluation` and `sums`.
bool is_tiled(const ForwardCall& call);
bool is_tiled(const DistanceCall& call);

// Bytes of device memory that the call needs besides its tensors: packed filters, slices of k, tiles' statistics.
int64_t workspace_bytes(const ForwardCall& call);
int64_t workspace_bytes(const GradInputCall& call);
int64_t workspace_bytes(const DistanceCall& call);

// Queue the work on `stream` and return the launch's error. At least one output; the caller has set the device.
cudaError_t adder2d_cuda(const ForwardCall& call, void* workspace, cudaStream_t stream);
cudaError_t adder2d_grad_input_cuda(const GradInputCall& call, void* workspace, cudaStream_t stream);
cudaError_t distance_u8(const DistanceCall& call, void* workspace, cudaStream_t stream);

}  // namespace addertrain::cuda
