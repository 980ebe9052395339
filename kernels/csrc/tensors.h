// What operators on any device read from tensors through the stable ABI: sizes, strides, and the layout of the result.
// Python has checked the arguments; the checks here keep a direct call of the operator from reading foreign memory.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "device/layer.h"

namespace addertrain {

using Sizes = std::vector<int64_t>;

constexpr int64_t kMostFilterSize = 64;  // MAX_FILTER_SIZE of ops/geometry.py: taps are the bits of an integer

inline int64_t least(const Sizes& two) { return std::min(two[0], two[1]); }

inline ImageStrides strides_of(const torch::stable::Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// The layout that a result takes from x: channels-last where strides ascend from channels over columns and rows to
// images. By strides alone, also where sizes of one would allow either name: a network on single-channel images keeps
// the layout that its loader chose. `memory_format` in ops/layout.py is the same rule for tensors without data.
inline torch::headeronly::MemoryFormat format_of(const torch::stable::Tensor& x) {
  using torch::headeronly::MemoryFormat;
  int64_t least = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (axis == 0 && x.size(axis) == 1) break;  // the pitch of a single image is arbitrary
    if (x.stride(axis) < least) return MemoryFormat::Contiguous;
    least = x.stride(axis) * std::max<int64_t>(1, x.size(axis));
  }
  const bool is_one_pixel = x.size(1) * x.size(2) * x.size(3) == 1;
  return is_one_pixel ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
}

// Whether the elements fill a piece of memory, in any order of the axes.
inline bool is_without_gaps(const torch::stable::Tensor& t) {
  std::vector<std::pair<int64_t, int64_t>> axes;  // (stride, size) of those that have neighbours
  for (int64_t axis = 0; axis < t.dim(); ++axis)
    if (t.size(axis) > 1) axes.emplace_back(t.stride(axis), t.size(axis));
  std::sort(axes.begin(), axes.end());
  int64_t pitch = 1;
  for (const auto& [stride, size] : axes) {
    if (stride != pitch) return false;
    pitch *= size;
  }
  return true;
}

inline torch::stable::Tensor empty_like_input(const Sizes& sizes, const torch::stable::Tensor& x) {
  return torch::stable::empty(sizes, x.scalar_type(), std::nullopt, x.device(), std::nullopt, format_of(x));
}

// Whether two tensors of four dimensions have the same sizes.
inline bool have_one_shape(const torch::stable::Tensor& a, const torch::stable::Tensor& b) {
  bool is_alike = a.dim() == 4 && b.dim() == 4;
  for (int axis = 0; is_alike && axis < 4; ++axis) is_alike = a.size(axis) == b.size(axis);
  return is_alike;
}

// The `count` numbers of a vector, one for each filter or channel, on the device of `like`. `expected` is the error.
inline const float* floats_of(const torch::stable::Tensor& numbers, const torch::stable::Tensor& like, int64_t count,
                              const char* expected) {
  STD_TORCH_CHECK(numbers.dim() == 1 && numbers.size(0) == count && numbers.is_contiguous() &&
                      numbers.scalar_type() == torch::headeronly::ScalarType::Float &&
                      numbers.device() == like.device(),
                  expected);
  return static_cast<const float*>(numbers.const_data_ptr());
}

// How many groups of channels a layer has: filters see the channels of their own group.
inline int64_t groups_of(const torch::stable::Tensor& x, const torch::stable::Tensor& w) {
  STD_TORCH_CHECK(x.dim() == 4 && w.dim() == 4, "adder2d: expected x_nchw and w_ocrs with 4 dimensions each");
  const int64_t groups = w.size(1) > 0 ? x.size(1) / w.size(1) : 0;
  STD_TORCH_CHECK(groups > 0 && groups * w.size(1) == x.size(1) && w.size(0) % groups == 0,
                  "adder2d: expected x_nchw and w_ocrs of the same C, or groups whose number divides the channels of x "
                  "and the filters");
  return groups;
}

// One group of a layer; most layers have one. Refuses the numbers by which kernels would divide by zero or leave their
// tensors, as `check_arguments` in ops/geometry.py does.
inline Layer group_of(const torch::stable::Tensor& x, const torch::stable::Tensor& w, const Sizes& stride,
                      const Sizes& padding, const Sizes& dilation) {
  const int64_t groups = groups_of(x, w);
  STD_TORCH_CHECK(x.scalar_type() == w.scalar_type() && x.device() == w.device(),
                  "adder2d: expected x and weight of one dtype on one device");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                  "adder2d: expected two numbers each for stride, padding and dilation");
  STD_TORCH_CHECK(least(stride) >= 1 && least(padding) >= 0 && least(dilation) >= 1,
                  "adder2d: expected stride >= 1, padding >= 0 and dilation >= 1");
  STD_TORCH_CHECK(least({w.size(2), w.size(3)}) >= 1 && std::max(w.size(2), w.size(3)) <= kMostFilterSize,
                  "adder2d: expected filters of 1 to 64 rows and columns");
  const auto output_size = [](int64_t size, int64_t taps, int64_t u, int64_t a, int64_t e) {
    return (size + 2 * a - e * (taps - 1) - 1) / u + 1;
  };
  Layer d{};
  d.N = x.size(0), d.C = w.size(1), d.H = x.size(2), d.W = x.size(3);
  d.O = w.size(0) / groups, d.R = w.size(2), d.S = w.size(3);
  d.stride_h = stride[0], d.stride_w = stride[1];
  d.padding_h = padding[0], d.padding_w = padding[1];
  d.dilation_h = dilation[0], d.dilation_w = dilation[1];
  d.P = output_size(d.H, d.R, d.stride_h, d.padding_h, d.dilation_h);
  d.Q = output_size(d.W, d.S, d.stride_w, d.padding_w, d.dilation_w);
  STD_TORCH_CHECK(d.H + 2 * d.padding_h > d.dilation_h * (d.R - 1) && d.W + 2 * d.padding_w > d.dilation_w * (d.S - 1),
                  "adder2d: expected an input at least as large as the filter");
  return d;
}

inline Layer layer_of(const torch::stable::Tensor& x, const torch::stable::Tensor& w, const Sizes& stride,
                      const Sizes& padding, const Sizes& dilation) {
  STD_TORCH_CHECK(groups_of(x, w) == 1, "adder2d: expected x_nchw and w_ocrs of the same C: this operator has no groups");
  return group_of(x, w, stride, padding, dilation);
}

inline void check_grad_output(const Layer& d, const torch::stable::Tensor& dy, const torch::stable::Tensor& x,
                              int64_t groups = 1) {
  STD_TORCH_CHECK(dy.dim() == 4 && dy.size(0) == d.N && dy.size(1) == groups * d.O && dy.size(2) == d.P && dy.size(3) == d.Q,
                  "adder2d_grad_input: expected dy_nopq of the response's shape");
  STD_TORCH_CHECK(dy.scalar_type() == x.scalar_type() && dy.device() == x.device(),
                  "adder2d_grad_input: expected dy and x of one dtype on one device");
}

}  // namespace addertrain
