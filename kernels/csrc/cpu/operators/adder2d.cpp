// The operators of the layer on CPUs: allocation, layouts, types and threads.
//
// float32 runs the tiled kernels; float16 and bfloat16 are widened, computed in float32 and rounded once at the end;
// float64 runs the direct kernels. Small groups share registers (grouped/lanes.h), large ones are computed one after the
// other, on slices of the channels.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "csrc/cpu/operators/dense_calls.h"
#include "device/direct.h"

namespace addertrain::cpu {
namespace {

void forward_double(const Layer& d, const Tensor& x, const Tensor& w, bool offset_free, Tensor& y) {
  run_direct(DirectForward<double, double>{d, x.const_data_ptr<double>(), strides_of(x), w.const_data_ptr<double>(),
                                           strides_of(w), y.mutable_data_ptr<double>(), strides_of(y), offset_free,
                                           groups_of(x, w)});
}

void grad_input_double(const Layer& d, const Tensor& dy, const Tensor& x, const Tensor& w, Tensor& dx) {
  run_direct(DirectGradInput<double, double>{d, dy.const_data_ptr<double>(), strides_of(dy), x.const_data_ptr<double>(),
                                             strides_of(x), w.const_data_ptr<double>(), strides_of(w),
                                             dx.mutable_data_ptr<double>(), strides_of(dx), groups_of(x, w)});
}

Tensor adder2d_cpu(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation, bool offset_free) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  const MemoryFormat format = format_of(x);
  Tensor y = empty_like_input({d.N, groups * d.O, d.P, d.Q}, x);
  if (y.numel() == 0) return y;
  if (is_sixteen_bit(x)) {
    const Tensor wide = adder2d_cpu(convert(dense(x, format), ScalarType::Float), convert(w, ScalarType::Float), stride,
                                    padding, dilation, offset_free);
    return torch::stable::copy_(y, wide);
  }
  if (x.scalar_type() == ScalarType::Double) {
    forward_double(d, x, w, offset_free, y);
    return y;
  }
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "adder2d: expected a floating-point x");
  if (groups > 1 && !share_registers(d)) {
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = channels_of(y, g, d.O);
      torch::stable::copy_(part, adder2d_cpu(channels_of(x, g, d.C), filters_of(w, g, d.O), stride, padding, dilation,
                                             offset_free));
    }
    return y;
  }
  const Tensor source = dense(x, format), filters = dense(w, MemoryFormat::Contiguous);
  const DenseForwardCall call{d, image_of(source), filters.const_data_ptr<float>(), order_of(filters),
                         y.mutable_data_ptr<float>(), layout_of(format), offset_free, groups};
  run(pass_of(call), call, call.groups * elements(call.layer), x);
  return y;
}

Tensor grad_input(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation,
                  bool is_rectified) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  const MemoryFormat format = format_of(x);
  check_grad_output(d, dy, x, groups);
  Tensor dx = empty_like_input({d.N, groups * d.C, d.H, d.W}, x);
  if (dx.numel() == 0) return dx;
  if (is_sixteen_bit(x)) {
    const Tensor wide = grad_input(convert(dense(dy, format), ScalarType::Float),
                                   convert(dense(x, format), ScalarType::Float), convert(w, ScalarType::Float), stride,
                                   padding, dilation, is_rectified);
    return torch::stable::copy_(dx, wide);
  }
  if (x.scalar_type() == ScalarType::Double) {
    grad_input_double(d, dy, x, w, dx);
    return dx;
  }
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "adder2d_grad_input: expected a floating-point x");
  if (groups > 1 && !share_registers(d)) {
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = channels_of(dx, g, d.C);
      torch::stable::copy_(part, grad_input(channels_of(dy, g, d.O), channels_of(x, g, d.C), filters_of(w, g, d.O),
                                            stride, padding, dilation, is_rectified));
    }
    return dx;
  }
  DenseGradInput given(dy, x, w, dx, d, groups);
  DenseGradInputCall& call = given.call;
  call.only_non_zeros = groups == 1 && is_rectified && uses_lists(call.layer, call.x.data);
  run(pass_of(call), call, call.groups * elements(call.layer), x);
  return dx;
}

bool can_walk_lists(const Tensor& x, const Tensor& w) {
  return x.scalar_type() == ScalarType::Float && groups_of(x, w) == 1 && x.numel() > 0 && w.numel() > 0;
}

// Whether one walk over lists is the fastest way to both gradients behind a ReLU.
bool walks_lists(const Tensor& x, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation) {
  const Layer d = flattened(group_of(x, w, stride, padding, dilation), 1);
  return can_walk_lists(x, w) && uses_lists(d, ElementsInOrder(x));
}

// The input gradient, Eq. 6, where x is not 0, and sum dY X in the order of w (addertrain/ops/schemas.py).
std::tuple<Tensor, Tensor> adder2d_list_gradients(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride,
                                                  Sizes padding, Sizes dilation) {
  const Layer d = group_of(x, w, stride, padding, dilation);
  STD_TORCH_CHECK(can_walk_lists(x, w) && fits_lists(d),
                  "adder2d_list_gradients: expected a float32 layer without groups, with inputs, and with images of less "
                  "than 2^30 numbers");
  check_grad_output(d, dy, x, 1);
  DenseGradInput given(dy, x, w, empty_like_input({d.N, d.C, d.H, d.W}, x), d, 1);
  DenseGradInputCall& call = given.call;
  call.only_non_zeros = true;
  Tensor dw = torch::stable::empty_like(given.w);
  const BothGradients& both = kernels_for(d.O).both_gradients;
  const Tensor packed = pack(pass_of(call), call, x);
  const Tensor sums = torch::stable::empty({both.sums_floats(call)}, ScalarType::Float, std::nullopt, x.device());
  float* parts = sums.mutable_data_ptr<float>();
  const int64_t tasks = both.num_tasks(call), blocks = pass_of(call).num_blocks(call);
  torch::stable::parallel_for(0, tasks, grain_of(kComputeGrain, tasks, elements(d)), [&](int64_t begin, int64_t end) {
    both.compute(call, packed.const_data_ptr<float>(), begin, end, parts);
  });
  const int64_t grain = grain_of(kPackGrain, blocks, sums.numel());
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) both.merge(call, parts, block, dw.mutable_data_ptr<float>());
  });
  return {given.dx, dw};
}

// The sums of dY X of a layer in small groups, as a contiguous dw_ocrs (addertrain/ops/grad_weight.py).
Tensor grouped_grad_weight(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                           Sizes dilation) {
  const int64_t groups = groups_of(x, w);
  const Layer d = group_of(x, w, stride, padding, dilation);
  check_grad_output(d, dy, x, groups);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "grouped_grad_weight: expected a float32 x");
  Tensor dw = torch::stable::empty({groups * d.O, d.C, d.R, d.S}, ScalarType::Float, std::nullopt, x.device());
  const Tensor g = dense(dy, format_of(x)), source = dense(x, format_of(x));
  const DenseGradWeightCall call{d, image_of(g), image_of(source), groups};
  const GroupedGradWeight& pass = kernels_for(groups * d.O).grouped_grad_weight;
  const int64_t units = pass.num_units(call);
  const Tensor sums = torch::stable::empty({units * pass.unit_floats(call)}, ScalarType::Float, std::nullopt, x.device());
  float* parts = sums.mutable_data_ptr<float>();
  const int64_t grain = grain_of(kComputeGrain, units, groups * elements(d));
  torch::stable::parallel_for(0, units, grain,
                              [&](int64_t begin, int64_t end) { pass.compute(call, begin, end, parts); });
  const int64_t merge_grain = grain_of(kPackGrain, groups * d.O, sums.numel());
  torch::stable::parallel_for(0, groups * d.O, merge_grain, [&](int64_t begin, int64_t end) {
    pass.merge(call, parts, begin, end, dw.mutable_data_ptr<float>());
  });
  return dw;
}

Tensor adder2d_grad_input_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                              Sizes dilation) {
  return grad_input(dy, x, w, stride, padding, dilation, false);
}

Tensor adder2d_rectified_grad_input_cpu(const Tensor& dy, const Tensor& x, const Tensor& w, Sizes stride, Sizes padding,
                                        Sizes dilation) {
  return grad_input(dy, x, w, stride, padding, dilation, true);
}

int64_t cpu_ceiling_spin(bool is_forward, int64_t variant, int64_t iterations) {
  return kernels_for(kWholeRegister).spin(is_forward, variant, iterations);
}

bool use_cpu_instruction_set(int64_t set) { return use_instruction_set(static_cast<InstructionSet>(set)); }

int64_t cpu_instruction_set() { return static_cast<int64_t>(instruction_set_in_use()); }

}  // namespace
}  // namespace addertrain::cpu

// What the operator of this name answers, for `addertrain --version`, which loads this library without Python's torch.
extern "C" __attribute__((visibility("default"))) int64_t addertrain_cpu_instruction_set() {
  return addertrain::cpu::cpu_instruction_set();
}

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d", TORCH_BOX(&addertrain::cpu::adder2d_cpu));
  m.impl("adder2d_grad_input", TORCH_BOX(&addertrain::cpu::adder2d_grad_input_cpu));
  m.impl("adder2d_rectified_grad_input", TORCH_BOX(&addertrain::cpu::adder2d_rectified_grad_input_cpu));
  m.impl("walks_lists", TORCH_BOX(&addertrain::cpu::walks_lists));
  m.impl("adder2d_list_gradients", TORCH_BOX(&addertrain::cpu::adder2d_list_gradients));
  m.impl("grouped_grad_weight", TORCH_BOX(&addertrain::cpu::grouped_grad_weight));
}

STABLE_TORCH_LIBRARY_FRAGMENT(addertrain, m) {
  m.def("cpu_ceiling_spin(bool is_forward, int variant, int iterations) -> int");
  m.def("use_cpu_instruction_set(int instruction_set) -> bool");
  m.def("cpu_instruction_set() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(addertrain, CompositeExplicitAutograd, m) {
  m.impl("cpu_ceiling_spin", TORCH_BOX(&addertrain::cpu::cpu_ceiling_spin));
  m.impl("use_cpu_instruction_set", TORCH_BOX(&addertrain::cpu::use_cpu_instruction_set));
  m.impl("cpu_instruction_set", TORCH_BOX(&addertrain::cpu::cpu_instruction_set));
}
