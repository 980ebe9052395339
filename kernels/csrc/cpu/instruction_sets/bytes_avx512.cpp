// Distances of bytes in AVX-512 without VNNI: vpsadbw adds up eight neighbouring differences.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = __m512i;
  static constexpr int kLanes = 8, kDepth = 8, kRegisters = 4;
  static constexpr bool kAddsMaxima = false;
  static constexpr int positions(int registers) { return registers == 4 ? 6 : registers == 2 ? 12 : 8; }

  static Register zero() { return _mm512_setzero_si512(); }
  static Register load(const uint8_t* w) { return _mm512_loadu_si512(w); }
  static Register broadcast(const uint8_t* x) {
    int64_t eight;
    std::memcpy(&eight, x, sizeof eight);
    return _mm512_set1_epi64(eight);
  }
  // The upper half of every sum of 64 bits stays 0.
  static Register add(Register sums, Register x, Register w) {
    return _mm512_add_epi32(sums, _mm512_sad_epu8(x, w));
  }
  static void store(Register sums, int32_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi64_epi32(sums));
  }
};

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& avx512_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("avx512");
  return kernels;
}

}  // namespace addertrain::cpu
