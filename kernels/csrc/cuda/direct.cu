// One thread computes one output, straight from the equations: right for every type, layout and geometry, and slow. It
// serves float64, what the tiles' numbers cannot hold (plan.h), and small groups, whose sums have few terms and share their
// operands with neighbouring threads through the caches.
#include "csrc/cuda/direct.h"

#include <type_traits>

#include "csrc/cuda/blocks.h"
#include "csrc/cuda/short_offsets.h"
#include "device/direct.h"
#include "device/platform.h"

namespace addertrain::cuda {
namespace {

constexpr int kDirectThreads = 256;

// Blocks that a multiprocessor must hold. With positions of 64 bits, which a subroutine divides, the compiler puts
// numbers on the stack to save registers unless it is told that two blocks are enough; 0 leaves the choice to it.
template <typename Index>
constexpr int kDirectBlocks = sizeof(Index) == 8 ? 2 : 0;

template <typename Acc, typename T, typename Term, typename Index>
__global__ void __launch_bounds__(kDirectThreads, kDirectBlocks<Index>)
    adder_direct_kernel(const __grid_constant__ DirectForward<Acc, T, Term, Index> pass) {
  const int64_t i = int64_t{blockIdx.x} * kDirectThreads + threadIdx.x;  // passes 2^31 on large activations
  if (i < pass.count()) pass(static_cast<Index>(i));
}

template <typename Acc, typename T, typename Slope, typename Index>
__global__ void __launch_bounds__(kDirectThreads, kDirectBlocks<Index>)
    adder_direct_grad_input_kernel(const __grid_constant__ DirectGradInput<Acc, T, Slope, Index> pass) {
  const int64_t i = int64_t{blockIdx.x} * kDirectThreads + threadIdx.x;
  if (i < pass.count()) pass(static_cast<Index>(i));
}

// Powers in float32 by the special function unit, with the tiles' instructions and their error (power_of). An
// offset-free response needs |w|^p as well, for each of its terms: no thread knows another's.
template <bool kIsOffsetFree>
struct PowerSimilarityF32 {
  float p;
  ADDERTRAIN_DEVICE float operator()(float x, float w) const {
    return (kIsOffsetFree ? power_of(fabsf(w), p) : 0.0f) - power_of(fabsf(x - w), p);
  }
};

struct PowerSlopeF32 {
  float p;
  ADDERTRAIN_DEVICE float operator()(float difference) const {
    return copysignf(p * power_of(fabsf(difference), p - 1.0f), difference);
  }
};

// A grid holds 2^31 - 1 blocks: more threads than any memory has elements.
dim3 direct_grid(int64_t count) { return dim3(num_blocks(count, kDirectThreads)); }

template <typename Acc, typename T, typename Index, typename Term>
cudaError_t launch_with(const ForwardCall& call, const Term& term, cudaStream_t stream) {
  const DirectForward<Acc, T, Term, Index> pass{call.layer,
                                                static_cast<const T*>(call.x.data),
                                                call.x.strides,
                                                static_cast<const T*>(call.w.data),
                                                call.w.strides,
                                                static_cast<T*>(call.y.data),
                                                call.y.strides,
                                                term,
                                                static_cast<Index>(call.groups)};
  const auto kernel = adder_direct_kernel<Acc, T, Term, Index>;
  return launch(kernel, direct_grid(pass.count()), kDirectThreads, 0, stream, pass);
}

template <typename Acc, typename T, typename Index, typename Slope>
cudaError_t launch_with(const GradInputCall& call, const Slope& slope, cudaStream_t stream) {
  const DirectGradInput<Acc, T, Slope, Index> pass{call.layer,
                                                   static_cast<const T*>(call.dy.data),
                                                   call.dy.strides,
                                                   static_cast<const T*>(call.x.data),
                                                   call.x.strides,
                                                   static_cast<const T*>(call.w.data),
                                                   call.w.strides,
                                                   static_cast<T*>(call.dx.data),
                                                   call.dx.strides,
                                                   static_cast<Index>(call.groups),
                                                   slope};
  const auto kernel = adder_direct_grad_input_kernel<Acc, T, Slope, Index>;
  return launch(kernel, direct_grid(pass.count()), kDirectThreads, 0, stream, pass);
}

template <typename Acc, typename T, typename Index>
cudaError_t launch_distance(const ForwardCall& call, cudaStream_t stream) {
  if (call.power == 1.0) return launch_with<Acc, T, Index>(call, Similarity<Acc>{call.offset_free}, stream);
  if constexpr (std::is_same_v<Acc, double>) {
    return launch_with<Acc, T, Index>(call, PowerSimilarity<double>{call.power, call.offset_free}, stream);
  } else {
    const float p = static_cast<float>(call.power);
    return call.offset_free ? launch_with<Acc, T, Index>(call, PowerSimilarityF32<true>{p}, stream)
                            : launch_with<Acc, T, Index>(call, PowerSimilarityF32<false>{p}, stream);
  }
}

template <typename Acc, typename T, typename Index>
cudaError_t launch_distance(const GradInputCall& call, cudaStream_t stream) {
  if (call.power == 1.0) return launch_with<Acc, T, Index>(call, HardTanh<Acc>{}, stream);
  if constexpr (std::is_same_v<Acc, double>)
    return launch_with<Acc, T, Index>(call, PowerSlope<double>{call.power}, stream);
  else
    return launch_with<Acc, T, Index>(call, PowerSlopeF32{static_cast<float>(call.power)}, stream);
}

template <typename Acc, typename T, typename Call>
cudaError_t launch_type(const Call& call, cudaStream_t stream) {
  return is_short_call(call) ? launch_distance<Acc, T, int32_t>(call, stream)
                             : launch_distance<Acc, T, int64_t>(call, stream);
}

// 16-bit tensors are summed in float32.
template <typename Call>
cudaError_t launch_direct(const Call& call, cudaStream_t stream) {
  switch (call.type) {
    case Type::kFloat64: return launch_type<double, double>(call, stream);
    case Type::kFloat32: return launch_type<float, float>(call, stream);
    case Type::kFloat16: return launch_type<float, __half>(call, stream);
    case Type::kBfloat16: return launch_type<float, __nv_bfloat16>(call, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t direct_forward(const ForwardCall& call, cudaStream_t stream) { return launch_direct(call, stream); }

cudaError_t direct_grad_input(const GradInputCall& call, cudaStream_t stream) { return launch_direct(call, stream); }

}  // namespace addertrain::cuda
