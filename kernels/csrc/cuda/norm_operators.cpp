// Batch normalisation with ReLU on GPUs: allocation, layouts and stream. Python has checked the arguments.
#include "csrc/cuda/norm.h"
#include "csrc/cuda/torch_side.h"

namespace addertrain::cuda {
namespace {

using torch::headeronly::MemoryFormat;

constexpr const char* kNumbers =
    "batch_norm_relu: expected weight, bias, mean and var as contiguous float32 vectors of one number a channel";

Tensor channel_tensor(const Tensor& x) {
  return torch::stable::empty({x.size(1)}, ScalarType::Float, std::nullopt, x.device());
}

Tensor channels_last(const Tensor& t) { return torch::stable::contiguous(t, MemoryFormat::ChannelsLast); }

Tensor image_like(const Tensor& x) {
  return torch::stable::empty({x.size(0), x.size(1), x.size(2), x.size(3)}, x.scalar_type(), std::nullopt, x.device(),
                              std::nullopt, MemoryFormat::ChannelsLast);
}

NormCall norm_call(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, bool relu, const Tensor& mean,
                   const Tensor& var) {
  const int64_t C = x.size(1);
  STD_TORCH_CHECK(x.scalar_type() != ScalarType::Double, "batch_norm_relu: expected float32, float16 or bfloat16 x");
  return {type_of(x),
          x.size(0) * x.size(2) * x.size(3),
          static_cast<int>(C),
          x.const_data_ptr(),
          floats_of(weight, x, C, kNumbers),
          floats_of(bias, x, C, kNumbers),
          eps,
          relu,
          const_cast<float*>(floats_of(mean, x, C, kNumbers)),
          const_cast<float*>(floats_of(var, x, C, kNumbers))};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_of_sums(const Tensor& x_nchw, const Tensor& sums,
                                                           const Tensor& weight, const Tensor& bias, double eps,
                                                           bool relu) {
  const DeviceGuard guard(x_nchw.get_device_index());
  const Tensor x = channels_last(x_nchw);
  STD_TORCH_CHECK(sums.dim() == 2 && sums.size(0) == 2 && sums.size(1) == x.size(1) && sums.is_contiguous() &&
                      sums.scalar_type() == ScalarType::Double && sums.device() == x.device(),
                  "batch_norm_relu_of_sums: expected sums [2, C] in float64");
  Tensor y = image_like(x), mean = channel_tensor(x), var = channel_tensor(x);
  if (x.numel() == 0) return {y, torch::stable::zero_(mean), torch::stable::zero_(var)};
  const NormForwardCall call{norm_call(x, weight, bias, eps, relu, mean, var),
                             static_cast<const double*>(sums.const_data_ptr()), y.mutable_data_ptr()};
  const Tensor workspace = workspace_for(call, x);
  check_launch(batch_norm_relu_of_sums_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return {y, mean, var};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(const Tensor& dy_nchw, const Tensor& x_nchw,
                                                            const Tensor& weight, const Tensor& bias,
                                                            const Tensor& mean, const Tensor& var, double eps,
                                                            bool relu) {
  const DeviceGuard guard(x_nchw.get_device_index());
  const Tensor x = channels_last(x_nchw), dy = channels_last(dy_nchw);
  STD_TORCH_CHECK(have_one_shape(dy, x) && dy.scalar_type() == x.scalar_type() && dy.device() == x.device(),
                  "batch_norm_relu_backward: expected dy of the shape, dtype and device of x");
  Tensor dx = image_like(x), dweight = channel_tensor(x), dbias = channel_tensor(x);
  if (x.numel() == 0) return {dx, torch::stable::zero_(dweight), torch::stable::zero_(dbias)};
  const NormBackwardCall call{norm_call(x, weight, bias, eps, relu, mean, var), dy.const_data_ptr(),
                              dx.mutable_data_ptr(), static_cast<float*>(dweight.mutable_data_ptr()),
                              static_cast<float*>(dbias.mutable_data_ptr())};
  const Tensor workspace = workspace_for(call, x);
  check_launch(batch_norm_relu_backward_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return {dx, dweight, dbias};
}

}  // namespace
}  // namespace addertrain::cuda

STABLE_TORCH_LIBRARY_IMPL(addertrain, CUDA, m) {
  m.impl("batch_norm_relu_of_sums", TORCH_BOX(&addertrain::cuda::batch_norm_relu_of_sums));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&addertrain::cuda::batch_norm_relu_backward));
}
