// The launcher of depthwise layers in channels-last (device/depthwise.h).
#pragma once

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

// One channel and one filter a group, float32 or 16 bits, filters of 3x3, 5x5 or 7x7, equal strides of 1 or 2,
// no dilation, channels-last with a number of channels divisible by 4, offsets of 32 bits.
bool is_depthwise(const ForwardCall& call);
bool is_depthwise(const GradInputCall& call);

// Calls of that kind.
cudaError_t depthwise_forward(const ForwardCall& call, cudaStream_t stream);
cudaError_t depthwise_grad_input(const GradInputCall& call, cudaStream_t stream);

}  // namespace addertrain::cuda
