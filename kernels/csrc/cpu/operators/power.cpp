// The operators with the p-th power of the distance on CPUs, 1 < p < 2: allocation, layouts, types and threads.
//
// Types as in adder2d.cpp: float32 runs the kernels of power/, 16 bits are widened, float64 runs the direct kernels. The
// groups of a layer are computed one after the other, on slices of the channels.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "csrc/cpu/operators/dense_calls.h"
#include "csrc/cpu/power_fit.h"
#include "device/direct.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kElementsOfAnOrdinaryLayer = 6;  // they take as long as one element with a power

void check_power(double p, const Tensor& x) {
  STD_TORCH_CHECK(p > 1.0 && p < 2.0, "adder2d_power: expected a power between 1 and 2");
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || is_sixteen_bit(x),
                  "adder2d_power: expected a floating-point x");
}

int64_t work_of(const Layer& d) { return kElementsOfAnOrdinaryLayer * elements(d); }

// What a pass reads; the response has no dY.
struct Operands {
  Tensor x, w;
  std::optional<Tensor> dy;
};

// In float32, images in one of the two dense layouts.
Operands widened(const Operands& given) {
  const MemoryFormat format = format_of(given.x);
  const auto widen = [&](const Tensor& t) { return convert(dense(t, format), ScalarType::Float); };
  return {widen(given.x), convert(given.w, ScalarType::Float),
          given.dy ? std::optional<Tensor>(widen(*given.dy)) : std::nullopt};
}

Operands of_group(const Operands& given, int64_t group, const Layer& d) {
  return {channels_of(given.x, group, d.C), filters_of(given.w, group, d.O),
          given.dy ? std::optional<Tensor>(channels_of(*given.dy, group, d.O)) : std::nullopt};
}

// A pass of a layer of which `d` is one group.
struct PowerPass {
  Layer d;
  int64_t groups;
  double p;
};

// A pass in every type and any number of groups: it says which tensor its result is (`result`, and `part` of it for a
// group) and computes it in float64 (`direct`) and one group in float32 (`compute`).
template <typename Pass>
Tensor run_power(Pass pass, const Operands& given) {
  Tensor result = pass.result(given);
  if (result.numel() == 0) return result;
  if (is_sixteen_bit(given.x)) return torch::stable::copy_(result, run_power(pass, widened(given)));
  if (given.x.scalar_type() == ScalarType::Double) {
    pass.direct(given, result);
    return result;
  }
  if (pass.groups == 1) {
    pass.compute(given, result);
    return result;
  }
  Pass one = pass;
  one.groups = 1;
  for (int64_t group = 0; group < pass.groups; ++group) {
    Tensor part = pass.part(result, group);
    torch::stable::copy_(part, run_power(one, of_group(given, group, pass.d)));
  }
  return result;
}

struct Response : PowerPass {
  bool offset_free;

  Tensor result(const Operands& given) const { return empty_like_input({d.N, groups * d.O, d.P, d.Q}, given.x); }
  Tensor part(const Tensor& y, int64_t group) const { return channels_of(y, group, d.O); }

  void direct(const Operands& given, Tensor& y) const {
    run_direct(DirectForward<double, double, PowerSimilarity<double>>{
        d, given.x.const_data_ptr<double>(), strides_of(given.x), given.w.const_data_ptr<double>(),
        strides_of(given.w), y.mutable_data_ptr<double>(), strides_of(y), {p, offset_free}, groups});
  }

  void compute(const Operands& given, Tensor& y) const {
    const MemoryFormat format = format_of(given.x);
    const Tensor source = dense(given.x, format), filters = dense(given.w, MemoryFormat::Contiguous);
    const PowerFit fit(p);
    const PowerForwardCall call{{d, image_of(source), filters.const_data_ptr<float>(), order_of(filters),
                                 y.mutable_data_ptr<float>(), layout_of(format), offset_free},
                                &fit};
    run(kernels_for(d.O).power_forward, call, work_of(d), given.x);
  }
};

struct GradInput : PowerPass {
  Tensor result(const Operands& given) const { return empty_like_input({d.N, groups * d.C, d.H, d.W}, given.x); }
  Tensor part(const Tensor& dx, int64_t group) const { return channels_of(dx, group, d.C); }

  void direct(const Operands& given, Tensor& dx) const {
    run_direct(DirectGradInput<double, double, PowerSlope<double>>{
        d, given.dy->const_data_ptr<double>(), strides_of(*given.dy), given.x.const_data_ptr<double>(),
        strides_of(given.x), given.w.const_data_ptr<double>(), strides_of(given.w), dx.mutable_data_ptr<double>(),
        strides_of(dx), groups, {p}});
  }

  void compute(const Operands& given, Tensor& dx) const {
    const DenseGradInput dense_call(*given.dy, given.x, given.w, dx, d, 1);
    const PowerFit fit(p);
    const PowerGradInputCall call{dense_call.call, &fit};
    run(kernels_for(call.of.layer.C).power_grad_input, call, work_of(d), given.x);
  }
};

struct GradWeight : PowerPass {
  Tensor result(const Operands& given) const { return torch::stable::empty_like(given.w); }
  Tensor part(const Tensor& dw, int64_t group) const { return filters_of(dw, group, d.O); }

  void direct(const Operands& given, Tensor& dw) const {
    run_direct(DirectGradWeight<double, double, PowerSlope<double>>{
        d, given.dy->const_data_ptr<double>(), strides_of(*given.dy), given.x.const_data_ptr<double>(),
        strides_of(given.x), given.w.const_data_ptr<double>(), strides_of(given.w), dw.mutable_data_ptr<double>(),
        strides_of(dw), groups, {p}});
  }

  void compute(const Operands& given, Tensor& dw) const {
    const MemoryFormat format = format_of(given.x);
    const Tensor g = dense(*given.dy, format), source = dense(given.x, format);
    const Tensor filters = dense(given.w, MemoryFormat::Contiguous);
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
    run(kernels_for(d.O).power_grad_weight, call, work_of(d), given.x);
    if (!is_in_place) torch::stable::copy_(dw, sums);
  }
};

PowerPass power_pass(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, double p) {
  check_power(p, x);
  return {group_of(x, w, stride, padding, dilation), groups_of(x, w), p};
}

Tensor adder2d_power_cpu(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation,
                         bool offset_free, double p) {
  return run_power(Response{power_pass(x, w, stride, padding, dilation, p), offset_free}, {x, w, std::nullopt});
}

Tensor adder2d_power_grad_input_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                    Sizes dilation, double p) {
  const GradInput pass{power_pass(x, w, stride, padding, dilation, p)};
  check_grad_output(pass.d, dy, x, pass.groups);
  return run_power(pass, {x, w, dy});
}

Tensor adder2d_power_grad_weight_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                     Sizes dilation, double p) {
  const GradWeight pass{power_pass(x, w, stride, padding, dilation, p)};
  check_grad_output(pass.d, dy, x, pass.groups);
  return run_power(pass, {x, w, dy});
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d_power", TORCH_BOX(&addertrain::cpu::adder2d_power_cpu));
  m.impl("adder2d_power_grad_input", TORCH_BOX(&addertrain::cpu::adder2d_power_grad_input_cpu));
  m.impl("adder2d_power_grad_weight", TORCH_BOX(&addertrain::cpu::adder2d_power_grad_weight_cpu));
}
