// What the files of operators on GPUs share: a tensor's type, its stream, and a workspace for a call.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "csrc/cuda/launchers.h"
#include "csrc/tensors.h"

namespace addertrain::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

inline Type type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return Type::kFloat64;
    case ScalarType::Float: return Type::kFloat32;
    case ScalarType::Half: return Type::kFloat16;
    case ScalarType::BFloat16: return Type::kBfloat16;
    default: STD_TORCH_CHECK(false, "adder2d: expected a floating-point x");
  }
}

// torch's current stream on the tensor's device (Stream::nativeHandle needs torch 2.13).
inline cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// From torch's allocator, which hands memory on in the order of the stream, also while a graph is captured.
template <class Call>
Tensor workspace_for(const Call& call, const Tensor& x) {
  return torch::stable::empty({workspace_bytes(call)}, ScalarType::Byte, std::nullopt, x.device());
}

// Raises an error if the launch failed. For a GPU that the library holds no code for, it says what to do.
inline void check_launch(cudaError_t error) {
  STD_TORCH_CHECK(error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction,
                  "addertrain: expected a GPU of compute capability 8.0 or later that the CUDA library was compiled "
                  "for, got another; on 8.0 or later reinstall addertrain on this machine, otherwise run on the CPU");
  STD_CUDA_CHECK(error);
}

}  // namespace addertrain::cuda
