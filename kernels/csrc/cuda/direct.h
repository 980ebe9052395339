// The launcher of calls that no tile serves: one thread computes one output.
#pragma once

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

cudaError_t direct_forward(const ForwardCall& call, cudaStream_t stream);
cudaError_t direct_grad_input(const GradInputCall& call, cudaStream_t stream);

}  // namespace addertrain::cuda
