// The tiled kernels of each type and pass; each file that implements them compiles on its own.
#pragma once

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

int64_t forward_f32_bytes(const ForwardCall& call);
cudaError_t forward_f32(const ForwardCall& call, void* workspace, cudaStream_t stream);
int64_t grad_input_f32_bytes(const GradInputCall& call);
cudaError_t grad_input_f32(const GradInputCall& call, void* workspace, cudaStream_t stream);

// The same with the p-th power of the distance, 1 < p < 2.
int64_t power_forward_f32_bytes(const ForwardCall& call);
cudaError_t power_forward_f32(const ForwardCall& call, void* workspace, cudaStream_t stream);
int64_t power_grad_input_f32_bytes(const GradInputCall& call);
cudaError_t power_grad_input_f32(const GradInputCall& call, void* workspace, cudaStream_t stream);

// float16 and bfloat16.
int64_t forward_pairs_bytes(const ForwardCall& call);
cudaError_t forward_pairs(const ForwardCall& call, void* workspace, cudaStream_t stream);
int64_t grad_input_pairs_bytes(const GradInputCall& call);
cudaError_t grad_input_pairs(const GradInputCall& call, void* workspace, cudaStream_t stream);

}  // namespace addertrain::cuda
