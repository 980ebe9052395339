// The operators on GPUs: allocation, layouts, types, device and stream. Python has checked the arguments. The filter
// gradient is not here: it is a convolution's (addertrain/ops/grad_weight.py).
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "csrc/cuda/calls.h"
#include "csrc/tensors.h"

namespace addertrain::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

Type type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return Type::kFloat64;
    case ScalarType::Float: return Type::kFloat32;
    case ScalarType::Half: return Type::kFloat16;
    case ScalarType::BFloat16: return Type::kBfloat16;
    default: STD_TORCH_CHECK(false, "adder2d: expected a floating-point x");
  }
}

// Tensors are read where they lie, whatever their strides.
Image image_of(const Tensor& t) { return {t.const_data_ptr(), strides_of(t)}; }
Result result_of(const Tensor& t) { return {t.mutable_data_ptr(), strides_of(t)}; }

// torch's current stream on the tensor's device (Stream::nativeHandle needs torch 2.13).
cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// From torch's allocator, which hands memory on in the order of the stream, also while a graph is captured.
template <class Call>
Tensor workspace_for(const Call& call, const Tensor& x) {
  return torch::stable::empty({workspace_bytes(call)}, ScalarType::Byte, std::nullopt, x.device());
}

Tensor adder2d(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, bool offset_free) {
  const Layer d = layer_of(x, w, stride, padding, dilation);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = empty_like_input({d.N, d.O, d.P, d.Q}, x);
  if (y.numel() == 0) return y;
  const ForwardCall call{d, type_of(x), image_of(x), image_of(w), result_of(y), offset_free, {}, nullptr};
  const Tensor workspace = workspace_for(call, x);
  STD_CUDA_CHECK(adder2d_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return y;
}

Tensor adder2d_grad_input(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                          Sizes dilation) {
  const Layer d = layer_of(x, w, stride, padding, dilation);
  check_grad_output(d, dy, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor dx = empty_like_input({d.N, d.C, d.H, d.W}, x);
  if (dx.numel() == 0) return dx;
  const GradInputCall call{d, type_of(x), image_of(dy), image_of(x), image_of(w), result_of(dx)};
  const Tensor workspace = workspace_for(call, x);
  STD_CUDA_CHECK(adder2d_grad_input_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return dx;
}

}  // namespace
}  // namespace addertrain::cuda

STABLE_TORCH_LIBRARY_IMPL(addertrain, CUDA, m) {
  m.impl("adder2d", TORCH_BOX(&addertrain::cuda::adder2d));
  m.impl("adder2d_grad_input", TORCH_BOX(&addertrain::cuda::adder2d_grad_input));
}
