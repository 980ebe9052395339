// The operators on GPUs: allocation, layouts, types, device and stream. Python has checked the arguments. The filter
// gradient is not here: it is a convolution's (addertrain/ops/grad_weight.py).
#include "csrc/cuda/torch_side.h"

namespace addertrain::cuda {
namespace {

// Tensors are read where they lie, whatever their strides.
Image image_of(const Tensor& t) { return {t.const_data_ptr(), strides_of(t)}; }
Result result_of(const Tensor& t) { return {t.mutable_data_ptr(), strides_of(t)}; }

Tensor response(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, bool offset_free,
                double power) {
  const Layer d = group_of(x, w, stride, padding, dilation);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = empty_like_input({d.N, w.size(0), d.P, d.Q}, x);
  if (y.numel() == 0) return y;
  const ForwardCall call{d,  type_of(x), image_of(x),   image_of(w), result_of(y), offset_free,
                         {}, nullptr,    groups_of(x, w), power};
  const Tensor workspace = workspace_for(call, x);
  check_launch(adder2d_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return y;
}

Tensor grad_input(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation,
                  double power) {
  const Layer d = group_of(x, w, stride, padding, dilation);
  const int64_t groups = groups_of(x, w);
  check_grad_output(d, dy, x, groups);
  const DeviceGuard guard(x.get_device_index());
  const Tensor dx = empty_like_input({d.N, x.size(1), d.H, d.W}, x);
  if (dx.numel() == 0) return dx;
  const GradInputCall call{d, type_of(x), image_of(dy), image_of(x), image_of(w), result_of(dx), groups,
                           power};
  const Tensor workspace = workspace_for(call, x);
  check_launch(adder2d_grad_input_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
  return dx;
}

Tensor adder2d(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, bool offset_free) {
  return response(x, w, stride, padding, dilation, offset_free, 1.0);
}

Tensor adder2d_grad_input(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                          Sizes dilation) {
  return grad_input(dy, x, w, stride, padding, dilation, 1.0);
}

void check_power(double p) {
  STD_TORCH_CHECK(p > 1.0 && p < 2.0, "adder2d_power: expected a power between 1 and 2");
}

Tensor adder2d_power(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, bool offset_free,
                     double p) {
  check_power(p);
  return response(x, w, stride, padding, dilation, offset_free, p);
}

Tensor adder2d_power_grad_input(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                Sizes dilation, double p) {
  check_power(p);
  return grad_input(dy, x, w, stride, padding, dilation, p);
}

// The offset-free response with what follows it (addertrain/ops/fused.py).
void fused_forward(const ForwardCall& call, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(is_tiled(call), name,
                  ": expected float32, float16 or bfloat16 and sizes that tiles hold; use adder2d and the norm apart");
  const Tensor workspace = workspace_for(call, x);
  check_launch(adder2d_cuda(call, workspace.mutable_data_ptr(), current_stream(x)));
}

std::tuple<Tensor, Tensor> adder2d_with_sums(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                             Sizes dilation) {
  const Layer d = layer_of(x, w, stride, padding, dilation);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = empty_like_input({d.N, d.O, d.P, d.Q}, x);
  Tensor sums = torch::stable::empty({2, d.O}, ScalarType::Double, std::nullopt, x.device());
  if (y.numel() == 0) return {y, torch::stable::zero_(sums)};
  const ForwardCall call{d,    type_of(x), image_of(x), image_of(w), result_of(y), true,
                         {}, static_cast<double*>(sums.mutable_data_ptr())};
  fused_forward(call, x, "adder2d_with_sums");
  return {y, sums};
}

const void* residual_of(const Tensor& residual, const Tensor& y) {
  bool is_alike = have_one_shape(residual, y) && residual.scalar_type() == y.scalar_type() &&
                  residual.device() == y.device();
  for (int axis = 0; is_alike && axis < 4; ++axis)
    is_alike = y.size(axis) == 1 || residual.stride(axis) == y.stride(axis);
  STD_TORCH_CHECK(is_alike,
                  "adder2d_affine: expected a residual of the result's shape, dtype, device and layout");
  return residual.const_data_ptr();
}

Tensor adder2d_affine(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation,
                      const Tensor& scale, const Tensor& shift, std::optional<Tensor> residual, bool relu) {
  const Layer d = layer_of(x, w, stride, padding, dilation);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = empty_like_input({d.N, d.O, d.P, d.Q}, x);
  if (y.numel() == 0) return y;
  constexpr const char* kNumbers =
      "adder2d_affine: expected scale and shift as contiguous float32 vectors of one number a filter";
  const Evaluation evaluation{floats_of(scale, x, d.O, kNumbers), floats_of(shift, x, d.O, kNumbers),
                              residual ? residual_of(*residual, y) : nullptr, relu};
  const ForwardCall call{d, type_of(x), image_of(x), image_of(w), result_of(y), true, evaluation, nullptr};
  fused_forward(call, x, "adder2d_affine");
  return y;
}

Tensor adder2d_int8(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation) {
  const Layer d = layer_of(x, w, stride, padding, dilation);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Byte, "adder2d_int8: expected x and weight in uint8");
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, ScalarType::Int, std::nullopt, x.device(), std::nullopt,
                                        torch::headeronly::MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  const DistanceCall call{d, image_of(x), image_of(w), result_of(y)};
  STD_TORCH_CHECK(is_tiled(call),
                  "adder2d_int8: expected channels-last x and weight with a number of channels divisible by four");
  const Tensor workspace = workspace_for(call, x);
  check_launch(distance_u8(call, workspace.mutable_data_ptr(), current_stream(x)));
  return y;
}

}  // namespace
}  // namespace addertrain::cuda

STABLE_TORCH_LIBRARY_IMPL(addertrain, CUDA, m) {
  m.impl("adder2d", TORCH_BOX(&addertrain::cuda::adder2d));
  m.impl("adder2d_grad_input", TORCH_BOX(&addertrain::cuda::adder2d_grad_input));
  m.impl("adder2d_power", TORCH_BOX(&addertrain::cuda::adder2d_power));
  m.impl("adder2d_power_grad_input", TORCH_BOX(&addertrain::cuda::adder2d_power_grad_input));
  m.impl("adder2d_with_sums", TORCH_BOX(&addertrain::cuda::adder2d_with_sums));
  m.impl("adder2d_affine", TORCH_BOX(&addertrain::cuda::adder2d_affine));
  m.impl("adder2d_int8", TORCH_BOX(&addertrain::cuda::adder2d_int8));
}
