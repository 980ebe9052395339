// The one header that knows which compiler reads the tiled kernels: nvcc, or a host compiler that emulates them for tests
// on machines without a GPU. Everything else is written once, with the names of this header.
#pragma once

#include <cstdint>

namespace addertrain {

// The values of two neighbouring columns.
template <class T>
struct Two {
  T first, second;
};

}  // namespace addertrain

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define ADDERTRAIN_DEVICE __device__ __forceinline__

// sm_100, its PTX for later GPUs, and sm_103. From sm_110 on ptxas takes packed float32 apart again.
#define ADDERTRAIN_PACKS_FLOATS (__CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1100)

// Bytes: sm_107 and from sm_120 on no instruction adds up differences. CUDA 13.5 has maxima of four bytes there, for
// builds that name the architecture's own features (sm_120f, sm_107f).
#if (defined(__CUDA_ARCH_FAMILY_SPECIFIC__) || defined(__CUDA_ARCH_SPECIFIC__)) && \
    (__CUDA_ARCH__ == 1070 || __CUDA_ARCH__ >= 1200) &&                            \
    (__CUDACC_VER_MAJOR__ > 13 || (__CUDACC_VER_MAJOR__ == 13 && __CUDACC_VER_MINOR__ >= 5))
#define ADDERTRAIN_HAS_BYTE_MAXIMA 1
#else
#define ADDERTRAIN_HAS_BYTE_MAXIMA 0
#endif

namespace addertrain {

ADDERTRAIN_DEVICE unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return shared_bytes;
}

ADDERTRAIN_DEVICE void barrier() { __syncthreads(); }

// Asynchronous copies of 16 and 4 bytes to shared memory; zeros, and no read of `source`, where !is_valid.
ADDERTRAIN_DEVICE void copy_async16(void* to, const void* source, bool is_valid) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source), "r"(is_valid ? 16 : 0)
               : "memory");
}
ADDERTRAIN_DEVICE void copy_async4(void* to, const void* source, bool is_valid) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
#if ADDERTRAIN_PACKS_FLOATS  // ptxas makes a dozen instructions of a size, and none of a predicate
  asm volatile(
      "{ .reg .pred is_ignored; setp.eq.u32 is_ignored, %2, 0; "
      "cp.async.ca.shared.global [%0], [%1], 4, is_ignored; }" ::"r"(address), "l"(source), "r"(is_valid ? 1 : 0)
      : "memory");
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(source), "r"(is_valid ? 4 : 0)
               : "memory");
#endif
}
// Copies form groups; waiting leaves at most kPending of this thread's groups unfinished.
ADDERTRAIN_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
ADDERTRAIN_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

template <class V, class T>
ADDERTRAIN_DEVICE V load_vector(const T* from) {
  return *reinterpret_cast<const V*>(from);
}
template <class V, class T>
ADDERTRAIN_DEVICE void store_vector(T* to, V value) {
  *reinterpret_cast<V*>(to) = value;
}

// max(0, min(1, v)), for a NaN 0: a modifier of the addition before it.
ADDERTRAIN_DEVICE float saturate(float v) { return __saturatef(v); }

// Two neighbouring float32 values worked on together, each rounded by itself, so that packing changes no bit: FADD2 and
// FFMA2, or two instructions. nvcc packs nothing of itself. ptxas makes modifiers of an operand from the signs and
// absolute values of both halves, and from one value that is both halves. No packed addition saturates.
#if ADDERTRAIN_PACKS_FLOATS
ADDERTRAIN_DEVICE uint64_t to_word(Two<float> v) {
  uint64_t word;
  asm("mov.b64 %0, {%1, %2};" : "=l"(word) : "f"(v.first), "f"(v.second));
  return word;
}
ADDERTRAIN_DEVICE Two<float> to_two(uint64_t word) {
  Two<float> v;
  asm("mov.b64 {%0, %1}, %2;" : "=f"(v.first), "=f"(v.second) : "l"(word));
  return v;
}
ADDERTRAIN_DEVICE Two<float> subtract(Two<float> a, Two<float> b) {
  uint64_t d;
  asm("sub.rn.f32x2 %0, %1, %2;" : "=l"(d) : "l"(to_word(a)), "l"(to_word(b)));
  return to_two(d);
}
ADDERTRAIN_DEVICE Two<float> add_saturated_products(Two<float> acc, float g, Two<float> a, Two<float> b) {
  const Two<float> elements{saturate(a.first - b.first), saturate(a.second - b.second)};
  uint64_t d;
  asm("fma.rn.f32x2 %0, %1, %2, %3;" : "=l"(d) : "l"(to_word({g, g})), "l"(to_word(elements)), "l"(to_word(acc)));
  return to_two(d);
}
#else
ADDERTRAIN_DEVICE Two<float> subtract(Two<float> a, Two<float> b) { return {a.first - b.first, a.second - b.second}; }
ADDERTRAIN_DEVICE Two<float> add_saturated_products(Two<float> acc, float g, Two<float> a, Two<float> b) {
  return {fmaf(g, saturate(a.first - b.first), acc.first), fmaf(g, saturate(a.second - b.second), acc.second)};
}
#endif

// sum + |a - b| over four unsigned bytes: one instruction from sm_80 to sm_100 (the signed forms are thirty).
ADDERTRAIN_DEVICE int32_t add_byte_differences(int32_t sum, uint32_t a, uint32_t b) {
  int32_t d;
  asm("vabsdiff4.u32.u32.u32.add %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
  return d;
}

// Whether 2 max(a, b) - a - b stands for |a - b|.
ADDERTRAIN_DEVICE constexpr bool has_byte_maxima() { return ADDERTRAIN_HAS_BYTE_MAXIMA; }

// sum + the four bytes.
ADDERTRAIN_DEVICE int32_t add_bytes(int32_t sum, uint32_t bytes) {
  return static_cast<int32_t>(__dp4a(bytes, 0x01010101u, static_cast<uint32_t>(sum)));
}
// sum + 2 max(a, b) over four unsigned bytes: two instructions where there are maxima.
ADDERTRAIN_DEVICE int32_t add_twice_byte_maxima(int32_t sum, uint32_t a, uint32_t b) {
#if ADDERTRAIN_HAS_BYTE_MAXIMA
  uint32_t larger;
  asm("max.u8x4 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
#else
  const uint32_t larger = __vmaxu4(a, b);
#endif
  return static_cast<int32_t>(__dp4a(larger, 0x02020202u, static_cast<uint32_t>(sum)));
}

// d^p for d >= 0: two instructions of the special function unit and a product, denormal numbers as 0. The logarithm is off
// by 2^-22 between 0.5 and 2 and by as much of itself elsewhere, the exponential by 2^-22 of itself.
ADDERTRAIN_DEVICE float power_of(float d, float p) {
  float logarithm, power;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(logarithm) : "f"(d));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(p * logarithm));
  return power;
}

ADDERTRAIN_DEVICE float bits_as_float(uint32_t bits) { return __uint_as_float(bits); }
ADDERTRAIN_DEVICE float to_float(int32_t v) { return static_cast<float>(v); }
ADDERTRAIN_DEVICE float to_float(float v) { return v; }
ADDERTRAIN_DEVICE float to_float(__half v) { return __half2float(v); }
ADDERTRAIN_DEVICE float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
template <class T>
ADDERTRAIN_DEVICE T from_float(float v);
template <>
ADDERTRAIN_DEVICE float from_float<float>(float v) {
  return v;
}
template <>
ADDERTRAIN_DEVICE int32_t from_float<int32_t>(float v) {
  return static_cast<int32_t>(v);
}
template <>
ADDERTRAIN_DEVICE __half from_float<__half>(float v) {
  return __float2half(v);
}
template <>
ADDERTRAIN_DEVICE __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __float2bfloat16(v);
}

// Host: queues `kernel` on `stream` and returns the launch's error.
template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, int threads, int shared_bytes, cudaStream_t stream,
                   const Params& params) {
  if (shared_bytes > 48 * 1024) {  // beyond what every kernel may use unasked
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, threads, shared_bytes, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace addertrain

#else
#include "emulator.h"
#endif
