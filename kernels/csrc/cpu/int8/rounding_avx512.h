// Distances become bytes in AVX-512, sixteen in a register, without a detour through memory. Each number is computed as
// by `round_in_memory` in int8/tiles.h.
#pragma once

#include <immintrin.h>

#include "csrc/cpu/int8/byte_kernels.h"

namespace addertrain::cpu {
namespace {

// The first `count` of sixteen numbers: behind those of the last filters the tensors may end.
[[gnu::always_inline]] inline __m512 load_numbers(const float* from, int count) {
  if (count == 16) return _mm512_loadu_ps(from);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}
[[gnu::always_inline]] inline __m512 load_numbers(const uint8_t* from, int count) {
  const __m128i bytes = count == 16 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                                    : _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), from);
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// What `count` filters from `filter` on give before it is rounded. A residual of bytes is added if there is one.
[[gnu::always_inline]] inline __m512 before_rounding(__m512i distances, const ByteNorm& norm, int64_t filter, int count,
                                                     const uint8_t* residual) {
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(distances), load_numbers(norm.scale + filter, count));
  const __m512 value = _mm512_add_ps(product, load_numbers(norm.shift + filter, count));
  if (!residual) return value;
  const __m512 added = load_numbers(residual + filter, count);
  return _mm512_add_ps(value, _mm512_mul_ps(added, _mm512_set1_ps(norm.residual_scale)));
}

// The bytes of one position for kCount filters; filter j * 16 + lane lies in distances[j].
template <int kCount, int kRegisters>
[[gnu::always_inline]] inline void round_to_bytes(const __m512i (&distances)[kRegisters], const ByteNorm& norm,
                                                  const uint8_t* residual, uint8_t* y) {
  static_assert(kRegisters <= 4 && kCount <= 16 * kRegisters);
  __m512i nearest[4] = {};
#pragma GCC unroll 4
  for (int j = 0; j < kRegisters; ++j) {
    // Every number above 255 becomes 255; one beyond 2^31 would come back negative from the conversion. Of a NaN the
    // minimum gives its second argument, and the conversion -2^31, so that it becomes `low`.
    const int count = kCount - 16 * j < 16 ? kCount - 16 * j : 16;
    const __m512 exact = before_rounding(distances[j], norm, 16 * j, count, residual);
    const __m512 value = _mm512_min_ps(_mm512_set1_ps(255.0f), exact);
    nearest[j] = _mm512_cvt_roundps_epi32(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Packing saturates at 0 and works in quarters of a register: dword 4 q + j of the result is quarter q of register j.
  const __m512i quarters = _mm512_packus_epi16(_mm512_packs_epi32(nearest[0], nearest[1]),
                                               _mm512_packs_epi32(nearest[2], nearest[3]));
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  // `low` is an integer, so that rounding may come before the maximum.
  const __m512i bytes = _mm512_max_epu8(_mm512_permutexvar_epi32(in_order, quarters),
                                        _mm512_set1_epi8(static_cast<char>(norm.low)));
  if constexpr (kCount == 64) _mm512_storeu_si512(y, bytes);
  else _mm512_mask_storeu_epi8(y, (uint64_t{1} << kCount) - 1, bytes);
}

}  // namespace
}  // namespace addertrain::cpu
