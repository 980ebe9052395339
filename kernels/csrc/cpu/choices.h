// Which pass serves a call: by the layer's sizes and, behind a ReLU, by a sample of x. This is plain C++ without torch.
#pragma once

#include <algorithm>
#include <numeric>

#include "csrc/cpu/dispatch.h"
#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {

// A layer whose filters are as large as its input is fully connected over the pixels. In gather form its input gradient
// would mostly read padding.
inline bool is_fully_connected(const Layer& d) {
  return d.P == 1 && d.Q == 1 && d.padding_h == 0 && d.padding_w == 0 && d.R == d.H && d.S == d.W;
}

// Such a layer as one of 1x1 filters: every input is a channel, in the order in which the pixels lie in memory.
inline Layer fully_connected(const Layer& d) {
  Layer flat = d;
  flat.C = d.C * d.H * d.W;
  flat.H = flat.W = flat.R = flat.S = 1;
  flat.stride_h = flat.stride_w = flat.dilation_h = flat.dilation_w = 1;
  return flat;
}

// Whether more than `share` of x are zeros, by a sample of x[i], the elements in the order of its layout. A step that has
// a factor in common with the size of an image would meet some of its channels, or of its columns, again and again.
template <typename Images>
bool has_many_zeros(const Images& x, const Layer& d, double share) {
  constexpr int64_t kSamples = 1024;
  const int64_t image = d.C * d.H * d.W, count = d.N * image;
  int64_t step = std::max<int64_t>(1, count / kSamples);
  while (std::gcd(step, image) != 1) ++step;
  int64_t zeros = 0, sampled = 0;
  for (int64_t i = 0; i < count; i += step, ++sampled) zeros += x[i] == 0.0f;
  return static_cast<double>(zeros) > share * static_cast<double>(sampled);
}

// Whether the 32 bits of a list hold every offset within a unit, which is a part of an image or some small ones.
inline bool fits_lists(const Layer& d) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return d.H * d.W * d.C < kMost && d.P * d.Q * d.O < kMost;
}

// Whether lists of non-zeros pay, for the input gradient and for both gradients in one walk. A position must see enough
// taps and filters to make up for walking a list, and there must be enough positions to make up for reading the filters.
// Where a position sees many filters, lists pay even without zeros, unless the layer is so thin that dense tiles lay
// filters along the registers.
template <typename Images>
bool uses_lists(const Layer& d, const Images& x) {
  constexpr int64_t kManyFilters = 16, kManyPositions = 64;
  const int64_t taps = d.O * d.R * d.S / (d.stride_h * d.stride_w), positions = d.N * d.H * d.W;
  if (!fits_lists(d) || d.O < kManyFilters || taps < 64 || positions < kManyPositions) return false;
  return (taps >= 256 && d.C > kThinChannels) || has_many_zeros(x, d, taps >= 128 ? 0.1 : 0.25);
}

// Whether the groups are so small that all groups of the layer share registers (grouped/lanes.h). Larger groups are
// computed one after the other, each as a layer.
inline bool share_registers(const Layer& group) {
  constexpr int64_t kSmallGroup = 8;
  return group.C <= kSmallGroup && group.O <= kSmallGroup;
}

inline const PassFunctions<DenseForwardCall>& pass_of(const DenseForwardCall& call) {
  if (call.groups > 1) return kernels_for(call.groups * call.layer.O).grouped_forward;
  return kernels_for(call.layer.O).forward;
}

inline const PassFunctions<DenseGradInputCall>& pass_of(const DenseGradInputCall& call) {
  const Layer& d = call.layer;
  if (call.groups > 1) return kernels_for(call.groups * d.C).grouped_grad_input;
  return kernels_for(call.only_non_zeros || d.C <= kThinChannels ? d.O : d.C).grad_input;
}

}  // namespace addertrain::cpu
