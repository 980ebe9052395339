// Distances of bytes in AVX-512 with VNNI: |x - w| = 2 max(x, w) - x - w, and vpdpbusd by ones adds four neighbouring
// maxima to a sum of 32 bits. The sums of x and w are taken once.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = __m512i;
  static constexpr int kLanes = 16, kDepth = 4, kRegisters = 4;
  static constexpr bool kAddsMaxima = true;
  static constexpr int positions(int registers) { return registers == 4 ? 6 : registers == 2 ? 12 : 8; }

  static Register zero() { return _mm512_setzero_si512(); }
  static Register load(const uint8_t* w) { return _mm512_loadu_si512(w); }
  static Register broadcast(const uint8_t* x) {
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Register add(Register sums, Register x, Register w) {
    return _mm512_dpbusd_epi32(sums, _mm512_max_epu8(x, w), _mm512_set1_epi8(1));
  }
  static void store(Register sums, int32_t* to) { _mm512_storeu_si512(to, sums); }

  static int32_t add_up(const uint8_t* bytes, int64_t count) {
    Register sums = zero();
    for (int64_t i = 0; i < count; i += 64) {
      const __mmask64 rest = count - i < 64 ? (uint64_t{1} << (count - i)) - 1 : ~uint64_t{0};
      sums = _mm512_dpbusd_epi32(sums, _mm512_maskz_loadu_epi8(rest, bytes + i), _mm512_set1_epi8(1));
    }
    return _mm512_reduce_add_epi32(sums);
  }
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
