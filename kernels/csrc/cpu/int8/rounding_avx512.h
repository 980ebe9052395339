// Sixteen distances a register become bytes in AVX-512, without a detour through memory: as `finish` in int8/passes.h,
// number by number.
#pragma once

#include <immintrin.h>

#include "csrc/cpu/int8/byte_kernels.h"

namespace addertrain::cpu {
namespace {

// What a byte is before it is rounded. A residual of bytes is added where there is one.
[[gnu::always_inline]] inline __m512 before_rounding(__m512i distances, const ByteNorm& norm, int64_t filter, const uint8_t* residual) {
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(distances), _mm512_loadu_ps(norm.scale + filter));
  const __m512 value = _mm512_add_ps(product, _mm512_loadu_ps(norm.shift + filter));
  if (!residual) return value;
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(residual + filter));
  const __m512 beside = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  return _mm512_add_ps(value, _mm512_mul_ps(beside, _mm512_set1_ps(norm.residual_scale)));
}

// The bytes of one position for kCount filters; filter j * 16 + lane lies in distances[j].
template <int kCount, int kRegisters>
[[gnu::always_inline]] inline void round_to_bytes(const __m512i (&distances)[kRegisters], const ByteNorm& norm,
                                                  const uint8_t* residual, uint8_t* y) {
  static_assert(kRegisters <= 4 && kCount <= 16 * kRegisters);
  __m512i nearest[4] = {};
#pragma GCC unroll 4
  for (int j = 0; j < kRegisters; ++j) {
    // Above 255 all are alike, and a number beyond 2^31 would come back negative.
    const __m512 value = _mm512_min_ps(before_rounding(distances[j], norm, 16 * j, residual), _mm512_set1_ps(255.0f));
    nearest[j] = _mm512_cvt_roundps_epi32(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Packing saturates at 0 and works in quarters of a register: dword 4 q + j of the result is quarter q of register j.
  const __m512i quarters = _mm512_packus_epi16(_mm512_packs_epi32(nearest[0], nearest[1]),
                                               _mm512_packs_epi32(nearest[2], nearest[3]));
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  // The least byte is an integer, so that rounding may come first.
  const __m512i bytes = _mm512_max_epu8(_mm512_permutexvar_epi32(in_order, quarters),
                                        _mm512_set1_epi8(static_cast<char>(norm.low)));
  if constexpr (kCount == 64) _mm512_storeu_si512(y, bytes);
  else _mm512_mask_storeu_epi8(y, (uint64_t{1} << kCount) - 1, bytes);
}

}  // namespace
}  // namespace addertrain::cpu
