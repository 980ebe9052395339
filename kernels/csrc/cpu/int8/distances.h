// Sums of absolute differences of bytes, four rows against four rows: vpsadbw adds up eight bytes' differences at once,
// 64 elements an instruction of 512 bits. On Arm two instructions take 16 elements: UABD, and UDOT against ones.
#pragma once

#include <cstdint>
#include <cstdlib>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace addertrain::cpu {

constexpr int kByteRows = 4;
constexpr int64_t kByteStep = 64;  // rows are padded to multiples with zeros in both operands: |0 - 0| = 0

// sums[i][j] = sum_k |x[i][k] - w[j][k]|; rows lie `pitch` bytes apart, a multiple of kByteStep.
using ByteTile = void (*)(const uint8_t* x, const uint8_t* w, int64_t pitch, int32_t (&sums)[kByteRows][kByteRows]);

inline void byte_tile_portable(const uint8_t* x, const uint8_t* w, int64_t pitch,
                               int32_t (&sums)[kByteRows][kByteRows]) {
  for (int i = 0; i < kByteRows; ++i)
    for (int j = 0; j < kByteRows; ++j) {
      int32_t sum = 0;
      for (int64_t k = 0; k < pitch; ++k) sum += std::abs(int(x[i * pitch + k]) - int(w[j * pitch + k]));
      sums[i][j] = sum;
    }
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) inline void byte_tile_avx2(const uint8_t* x, const uint8_t* w, int64_t pitch,
                                                           int32_t (&sums)[kByteRows][kByteRows]) {
  // Two filters at a time: eight sums and four operands leave registers free.
  for (int j0 = 0; j0 < kByteRows; j0 += 2) {
    __m256i acc[kByteRows][2] = {};
    for (int64_t k = 0; k < pitch; k += 32)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m256i f = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + (j0 + j) * pitch + k));
#pragma GCC unroll 4
        for (int i = 0; i < kByteRows; ++i) {
          const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i * pitch + k));
          acc[i][j] = _mm256_add_epi64(acc[i][j], _mm256_sad_epu8(v, f));
        }
      }
    for (int i = 0; i < kByteRows; ++i)
      for (int j = 0; j < 2; ++j) {
        alignas(32) int64_t lanes[4];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), acc[i][j]);
        sums[i][j0 + j] = static_cast<int32_t>(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
      }
  }
}

__attribute__((target("avx512f,avx512bw"))) inline void byte_tile_avx512(const uint8_t* x, const uint8_t* w,
                                                                         int64_t pitch,
                                                                         int32_t (&sums)[kByteRows][kByteRows]) {
  __m512i acc[kByteRows][kByteRows];
#pragma GCC unroll 4
  for (int i = 0; i < kByteRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) acc[i][j] = _mm512_setzero_si512();
  for (int64_t k = 0; k < pitch; k += kByteStep) {
    __m512i v[kByteRows];
#pragma GCC unroll 4
    for (int i = 0; i < kByteRows; ++i) v[i] = _mm512_loadu_si512(x + i * pitch + k);
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) {
      const __m512i f = _mm512_loadu_si512(w + j * pitch + k);
#pragma GCC unroll 4
      for (int i = 0; i < kByteRows; ++i) acc[i][j] = _mm512_add_epi64(acc[i][j], _mm512_sad_epu8(v[i], f));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kByteRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) sums[i][j] = static_cast<int32_t>(_mm512_reduce_add_epi64(acc[i][j]));
}

#elif defined(__aarch64__)

__attribute__((target("arch=armv8.2-a+dotprod"))) inline void byte_tile_neon(const uint8_t* x, const uint8_t* w,
                                                                             int64_t pitch,
                                                                             int32_t (&sums)[kByteRows][kByteRows]) {
  uint32x4_t acc[kByteRows][kByteRows];
#pragma GCC unroll 4
  for (int i = 0; i < kByteRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) acc[i][j] = vdupq_n_u32(0);
  for (int64_t k = 0; k < pitch; k += 16) {
    uint8x16_t v[kByteRows];
#pragma GCC unroll 4
    for (int i = 0; i < kByteRows; ++i) v[i] = vld1q_u8(x + i * pitch + k);
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) {
      const uint8x16_t f = vld1q_u8(w + j * pitch + k);
#pragma GCC unroll 4
      for (int i = 0; i < kByteRows; ++i) acc[i][j] = vdotq_u32(acc[i][j], vabdq_u8(v[i], f), vdupq_n_u8(1));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kByteRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kByteRows; ++j) sums[i][j] = static_cast<int32_t>(vaddvq_u32(acc[i][j]));
}

// Whether this processor has UDOT; those before Armv8.2 do not.
inline bool has_dot_product() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }

#endif

inline ByteTile best_byte_tile() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw")) return byte_tile_avx512;
  if (__builtin_cpu_supports("avx2")) return byte_tile_avx2;
#elif defined(__aarch64__)
  if (has_dot_product()) return byte_tile_neon;
#endif
  return byte_tile_portable;
}

}  // namespace addertrain::cpu
