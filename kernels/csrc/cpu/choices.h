// Which pass serves a call: by the layer's sizes and, behind a ReLU, by a sample of x. Plain C++, no torch.
#pragma once

#include <algorithm>

#include "csrc/cpu/dispatch.h"
#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {

// A filter as large as its input is a fully connected layer over the pixels: in gather form it would read mostly
// padding.
inline bool is_fully_connected(const Layer& d) {
  return d.P == 1 && d.Q == 1 && d.padding_h == 0 && d.padding_w == 0 && d.R == d.H && d.S == d.W;
}

// Such a layer with every input as a channel, in the order in which the pixels lie in memory.
inline Layer fully_connected(const Layer& d) {
  Layer flat = d;
  flat.C = d.C * d.H * d.W;
  flat.H = flat.W = flat.R = flat.S = 1;
  flat.stride_h = flat.stride_w = flat.dilation_h = flat.dilation_w = 1;
  return flat;
}

// More than a share of all, by a sample of x, whatever its layout.
inline bool has_many_zeros(const float* x, int64_t count, double share) {
  constexpr int64_t kSamples = 1024;
  const int64_t step = std::max<int64_t>(1, count / kSamples) | 1;  // odd: no channel is left out
  int64_t zeros = 0, sampled = 0;
  for (int64_t i = 0; i < count; i += step, ++sampled) zeros += x[i] == 0.0f;
  return static_cast<double>(zeros) > share * static_cast<double>(sampled);
}

// Whether lists of non-zeros pay for both gradients: what a position sees of a channel's filters has to make up for
// walking a list, and there have to be positions enough to make up for reading the filters. Where a position sees many
// filters, lists pay even without zeros, unless a layer is so thin that dense tiles lay filters along the registers.
inline bool uses_lists(const Layer& d, const float* x) {
  constexpr int64_t kManyFilters = 16, kManyPositions = 64;
  const int64_t taps = d.O * d.R * d.S / (d.stride_h * d.stride_w), positions = d.N * d.H * d.W;
  if (d.O < kManyFilters || taps < 64 || positions < kManyPositions) return false;
  return (taps >= 256 && d.C > kThinChannels) || has_many_zeros(x, positions * d.C, taps >= 128 ? 0.1 : 0.25);
}

// Whether the groups are so small that those of a whole layer share registers (grouped/lanes.h); larger ones are layers
// of their own.
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
