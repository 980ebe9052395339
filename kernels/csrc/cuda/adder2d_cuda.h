// The launchers as the torch side calls them: plain C++ types, so that nvcc reads no torch header (10 s against 3 s a
// file) and the host compiler no kernel.
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

struct ForwardCall {
  Layer layer;
  Type type;
  Image x, w;
  Result y;
  bool offset_free;
};

struct GradInputCall {
  Layer layer;
  Type type;
  Image dy, x, w;
  Result dx;
};

// Queue the work on `stream` and return the launch's error. At least one output; the caller has set the device.
cudaError_t adder2d_cuda(const ForwardCall& call, cudaStream_t stream);
cudaError_t adder2d_grad_input_cuda(const GradInputCall& call, cudaStream_t stream);

}  // namespace addertrain::cuda
