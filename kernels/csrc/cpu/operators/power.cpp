// The operators with the p-th power of the distance on CPUs, 1 < p < 2: allocation, layouts, types and threads.
//
// Types as in adder2d.cpp: float32 runs the kernels of power/, 16 bits are widened, float64 runs the direct kernels. The
// groups of a layer are computed one after the other, on slices of the channels.
#include <torch/csrc/stable/library.h>

#include "csrc/cpu/operators/dense_calls.h"
#include "csrc/cpu/power_fit.h"
#include "device/direct.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kElementsOfAnOrdinaryLayer = 6;  // that take as long as one with a power

void check_power(double p, const Tensor& x) {
  STD_TORCH_CHECK(p > 1.0 && p < 2.0, "adder2d_power: expected a power between 1 and 2");
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || is_sixteen_bit(x),
                  "adder2d_power: expected a floating-point x");
}

int64_t work_of(const Layer& d) { return kElementsOfAnOrdinaryLayer * elements(d); }

Tensor widened(const Tensor& t, MemoryFormat format) { return convert(dense(t, format), ScalarType::Float); }

Tensor adder2d_power_cpu(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation,
                         bool offset_free, double p) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  const MemoryFormat format = format_of(x);
  check_power(p, x);
  Tensor y = empty_like_input({d.N, groups * d.O, d.P, d.Q}, x);
  if (y.numel() == 0) return y;
  if (is_sixteen_bit(x)) {
    const Tensor wide =
        adder2d_power_cpu(widened(x, format), convert(w, ScalarType::Float), stride, padding, dilation, offset_free, p);
    return torch::stable::copy_(y, wide);
  }
  if (x.scalar_type() == ScalarType::Double) {
    run_direct(DirectForward<double, double, PowerSimilarity<double>>{
        d, x.const_data_ptr<double>(), strides_of(x), w.const_data_ptr<double>(), strides_of(w),
        y.mutable_data_ptr<double>(), strides_of(y), {p, offset_free}, groups});
    return y;
  }
  if (groups > 1) {
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = channels_of(y, g, d.O);
      torch::stable::copy_(part, adder2d_power_cpu(channels_of(x, g, d.C), filters_of(w, g, d.O), stride, padding,
                                                   dilation, offset_free, p));
    }
    return y;
  }
  const Tensor source = dense(x, format), filters = dense(w, MemoryFormat::Contiguous);
  const PowerFit fit(p);
  const PowerForwardCall call{{d, image_of(source), filters.const_data_ptr<float>(), order_of(filters),
                               y.mutable_data_ptr<float>(), layout_of(format), offset_free},
                              &fit};
  run(kernels_for(d.O).power_forward, call, work_of(d), x);
  return y;
}

Tensor adder2d_power_grad_input_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                    Sizes dilation, double p) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  const MemoryFormat format = format_of(x);
  check_grad_output(d, dy, x, groups);
  check_power(p, x);
  Tensor dx = empty_like_input({d.N, groups * d.C, d.H, d.W}, x);
  if (dx.numel() == 0) return dx;
  if (is_sixteen_bit(x)) {
    const Tensor wide = adder2d_power_grad_input_cpu(widened(dy, format), widened(x, format),
                                                     convert(w, ScalarType::Float), stride, padding, dilation, p);
    return torch::stable::copy_(dx, wide);
  }
  if (x.scalar_type() == ScalarType::Double) {
    run_direct(DirectGradInput<double, double, PowerSlope<double>>{
        d, dy.const_data_ptr<double>(), strides_of(dy), x.const_data_ptr<double>(), strides_of(x),
        w.const_data_ptr<double>(), strides_of(w), dx.mutable_data_ptr<double>(), strides_of(dx), groups, {p}});
    return dx;
  }
  if (groups > 1) {
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = channels_of(dx, g, d.C);
      torch::stable::copy_(part, adder2d_power_grad_input_cpu(channels_of(dy, g, d.O), channels_of(x, g, d.C),
                                                              filters_of(w, g, d.O), stride, padding, dilation, p));
    }
    return dx;
  }
  const Tensor g = dense(dy, format), source = torch::stable::contiguous(x, format);
  const bool is_flat = is_fully_connected(d) && d.H * d.W > 1;
  const Tensor filters = is_flat ? torch::stable::contiguous(w, format) : dense(w, MemoryFormat::Contiguous);
  const PowerFit fit(p);
  const PowerGradInputCall call{
      {is_flat ? fully_connected(d) : d, image_of(g), {source.const_data_ptr<float>(), layout_of(format)},
       filters.const_data_ptr<float>(), is_flat ? FilterOrder::kChannelsInnermost : order_of(filters),
       dx.mutable_data_ptr<float>(), false},
      &fit};
  run(kernels_for(call.of.layer.C).power_grad_input, call, work_of(d), x);
  return dx;
}

Tensor adder2d_power_grad_weight_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                     Sizes dilation, double p) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  const MemoryFormat format = format_of(x);
  check_grad_output(d, dy, x, groups);
  check_power(p, x);
  Tensor dw = torch::stable::empty_like(w);
  if (dw.numel() == 0) return dw;
  if (is_sixteen_bit(x)) {
    const Tensor wide = adder2d_power_grad_weight_cpu(widened(dy, format), widened(x, format),
                                                      convert(w, ScalarType::Float), stride, padding, dilation, p);
    return torch::stable::copy_(dw, wide);
  }
  if (x.scalar_type() == ScalarType::Double) {
    run_direct(DirectGradWeight<double, double, PowerSlope<double>>{
        d, dy.const_data_ptr<double>(), strides_of(dy), x.const_data_ptr<double>(), strides_of(x),
        w.const_data_ptr<double>(), strides_of(w), dw.mutable_data_ptr<double>(), strides_of(dw), groups, {p}});
    return dw;
  }
  if (groups > 1) {
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = filters_of(dw, g, d.O);
      torch::stable::copy_(part, adder2d_power_grad_weight_cpu(channels_of(dy, g, d.O), channels_of(x, g, d.C),
                                                               filters_of(w, g, d.O), stride, padding, dilation, p));
    }
    return dw;
  }
  const Tensor g = dense(dy, format), source = dense(x, format), filters = dense(w, MemoryFormat::Contiguous);
  const bool is_in_place =
      order_of(filters) == FilterOrder::kChannelsInnermost ? is_dense_channels_last(dw) : dw.is_contiguous();
  Tensor sums = is_in_place ? dw : torch::stable::empty_like(filters);
  const PowerFit fit(p);
  const PowerGradWeightCall call{d,
                                 image_of(g),
                                 image_of(source),
                                 filters.const_data_ptr<float>(),
                                 order_of(filters),
                                 sums.mutable_data_ptr<float>(),
                                 &fit};
  run(kernels_for(d.O).power_grad_weight, call, work_of(d), x);
  return is_in_place ? dw : torch::stable::copy_(dw, sums);
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d_power", TORCH_BOX(&addertrain::cpu::adder2d_power_cpu));
  m.impl("adder2d_power_grad_input", TORCH_BOX(&addertrain::cpu::adder2d_power_grad_input_cpu));
  m.impl("adder2d_power_grad_weight", TORCH_BOX(&addertrain::cpu::adder2d_power_grad_weight_cpu));
}
