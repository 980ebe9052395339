// One thread an output, straight from the equations: right for every type, layout and geometry, and slow. It serves
// float64 and what the tiles' numbers cannot hold (plan.h). Of depthwise layers and other small groups it is the kernel:
// a sum of few terms whose operands neighbouring threads share through the caches.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "csrc/cuda/direct.h"
#include "device/direct.h"

namespace addertrain::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Acc, typename T, typename Term>
__global__ void __launch_bounds__(kThreads) adder_direct_kernel(const DirectForward<Acc, T, Term> pass) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;  // passes 2^31 on large activations
  if (i < pass.count()) pass(i);
}

template <typename Acc, typename T, typename Slope>
__global__ void __launch_bounds__(kThreads)
    adder_direct_grad_input_kernel(const DirectGradInput<Acc, T, Slope> pass) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < pass.count()) pass(i);
}

// A grid holds 2^31 - 1 blocks: more threads than any memory has elements.
unsigned num_blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

template <typename Acc, typename T, typename Term>
cudaError_t launch_with(const ForwardCall& call, const Term& term, cudaStream_t stream) {
  const DirectForward<Acc, T, Term> pass{call.layer,
                                   static_cast<const T*>(call.x.data),
                                   call.x.strides,
                                   static_cast<const T*>(call.w.data),
                                   call.w.strides,
                                   static_cast<T*>(call.y.data),
                                   call.y.strides,
                                   term,
                                   call.groups};
  adder_direct_kernel<<<num_blocks(pass.count()), kThreads, 0, stream>>>(pass);
  return cudaGetLastError();
}

template <typename Acc, typename T, typename Slope>
cudaError_t launch_with(const GradInputCall& call, const Slope& slope, cudaStream_t stream) {
  const DirectGradInput<Acc, T, Slope> pass{call.layer,
                                     static_cast<const T*>(call.dy.data),
                                     call.dy.strides,
                                     static_cast<const T*>(call.x.data),
                                     call.x.strides,
                                     static_cast<const T*>(call.w.data),
                                     call.w.strides,
                                     static_cast<T*>(call.dx.data),
                                     call.dx.strides,
                                     call.groups,
                                     slope};
  adder_direct_grad_input_kernel<<<num_blocks(pass.count()), kThreads, 0, stream>>>(pass);
  return cudaGetLastError();
}

template <typename Acc, typename T>
cudaError_t launch(const ForwardCall& call, cudaStream_t stream) {
  if (call.power != 1.0)
    return launch_with<Acc, T>(call, PowerSimilarity<Acc>{call.power, call.offset_free}, stream);
  return launch_with<Acc, T>(call, Similarity<Acc>{call.offset_free}, stream);
}

template <typename Acc, typename T>
cudaError_t launch(const GradInputCall& call, cudaStream_t stream) {
  if (call.power != 1.0) return launch_with<Acc, T>(call, PowerSlope<Acc>{call.power}, stream);
  return launch_with<Acc, T>(call, HardTanh<Acc>{}, stream);
}

// 16-bit tensors are summed in float32.
template <typename Call>
cudaError_t launch_for_type(const Call& call, cudaStream_t stream) {
  switch (call.type) {
    case Type::kFloat64: return launch<double, double>(call, stream);
    case Type::kFloat32: return launch<float, float>(call, stream);
    case Type::kFloat16: return launch<float, __half>(call, stream);
    case Type::kBfloat16: return launch<float, __nv_bfloat16>(call, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t direct_forward(const ForwardCall& call, cudaStream_t stream) { return launch_for_type(call, stream); }

cudaError_t direct_grad_input(const GradInputCall& call, cudaStream_t stream) { return launch_for_type(call, stream); }

}  // namespace addertrain::cuda
