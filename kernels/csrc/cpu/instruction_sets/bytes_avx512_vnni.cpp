// Distances of bytes in AVX-512 with VNNI: |x - w| = 2 max(x, w) - x - w, and vpdpbusd by ones adds four neighbouring
// maxima, times two, to a sum of 32 bits. The sums of x and w are taken once.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "csrc/cpu/int8/rounding_avx512.h"

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = __m512i;
  static constexpr int kLanes = 16, kDepth = 4, kRegisters = 4;
  static constexpr bool kAddsMaxima = true, kRoundsInRegisters = true;
  static constexpr int positions(int registers) { return registers == 4 ? 6 : registers == 2 ? 12 : 8; }

  static Register zero() { return _mm512_setzero_si512(); }
  static Register load(const uint8_t* w) { return _mm512_loadu_si512(w); }
  static Register broadcast(const uint8_t* x) {
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Register add(Register sums, Register x, Register w) {
    return _mm512_dpbusd_epi32(sums, _mm512_max_epu8(x, w), _mm512_set1_epi8(2));
  }
  static void store(Register sums, int32_t* to) { _mm512_storeu_si512(to, sums); }
  template <int kRegistersInUse>
  [[gnu::always_inline]] static void round(const Register (&sums)[kRegistersInUse], int32_t x_sum, const ByteNorm& norm,
                    const uint8_t* residual, uint8_t* y) {
    Register distances[kRegistersInUse];
#pragma GCC unroll 4
    for (int j = 0; j < kRegistersInUse; ++j) distances[j] = _mm512_sub_epi32(sums[j], _mm512_set1_epi32(x_sum));
    round_to_bytes<16 * kRegistersInUse>(distances, norm, residual, y);
  }

  // The sums of `count` bytes at four places.
  static void add_up(const uint8_t* const (&bytes)[4], int64_t count, int32_t (&sums)[4]) {
    Register sixteenths[4] = {};
    int64_t i = 0;
    for (; i + 64 <= count; i += 64)
      for (int k = 0; k < 4; ++k) sixteenths[k] = add_four(sixteenths[k], load(bytes[k] + i));
    if (i < count) {
      const __mmask64 rest = (uint64_t{1} << (count - i)) - 1;
      for (int k = 0; k < 4; ++k)
        sixteenths[k] = add_four(sixteenths[k], _mm512_maskz_loadu_epi8(rest, bytes[k] + i));
    }
    // Two steps of a transposition, with a sum in each, leave [place] in every quarter of a register.
    const Register a = add_halves(sixteenths[0], sixteenths[1]), b = add_halves(sixteenths[2], sixteenths[3]);
    const Register quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i eighths = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64(quarters, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums),
                     _mm_add_epi32(_mm256_castsi256_si128(eighths), _mm256_extracti128_si256(eighths, 1)));
  }

 private:
  static Register add_four(Register sums, Register bytes) {
    return _mm512_dpbusd_epi32(sums, bytes, _mm512_set1_epi8(1));
  }
  static Register add_halves(Register a, Register b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  }
};

// Two 16-bit words a lane: vpdpwssd adds both products.
struct Words : Bytes {
  static constexpr bool kAddsMaxima = false;
  static Register add(Register sums, Register x, Register w) { return _mm512_dpwssd_epi32(sums, x, w); }
};

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& avx512_vnni_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("avx512_vnni");
  return kernels;
}

}  // namespace addertrain::cpu
