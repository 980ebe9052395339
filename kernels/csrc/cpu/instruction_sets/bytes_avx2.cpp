// Distances of bytes in AVX2: vpsadbw adds up eight neighbouring differences.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = __m256i;
  static constexpr int kLanes = 4, kDepth = 8, kRegisters = 2;
  static constexpr bool kAddsMaxima = false, kRoundsInRegisters = false;
  static constexpr int positions(int registers) { return registers == 2 ? 5 : 8; }

  static Register zero() { return _mm256_setzero_si256(); }
  static Register load(const uint8_t* w) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)); }
  static Register broadcast(const uint8_t* x) {
    int64_t eight;
    std::memcpy(&eight, x, sizeof eight);
    return _mm256_set1_epi64x(eight);
  }
  // The upper half of every sum of 64 bits stays 0.
  static Register add(Register sums, Register x, Register w) {
    return _mm256_add_epi32(sums, _mm256_sad_epu8(x, w));
  }
  static void store(Register sums, int32_t* to) {
    const __m256i lower_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(sums, lower_halves)));
  }
};

// Two 16-bit words a lane.
struct Words : Bytes {
  static constexpr int kLanes = 8, kDepth = 4;

  static Register broadcast(const uint8_t* x) {
    int32_t two;
    std::memcpy(&two, x, sizeof two);
    return _mm256_set1_epi32(two);
  }
  static Register add(Register sums, Register x, Register w) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(x, w));
  }
  static void store(Register sums, int32_t* to) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sums); }
};

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& avx2_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("avx2");
  return kernels;
}

}  // namespace addertrain::cpu
