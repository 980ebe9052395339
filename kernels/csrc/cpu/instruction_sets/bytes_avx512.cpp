// Distances of bytes in AVX-512 without VNNI: vpsadbw adds up eight neighbouring differences.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "csrc/cpu/int8/rounding_avx512.h"

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = __m512i;
  static constexpr int kLanes = 8, kDepth = 8, kRegisters = 4;
  static constexpr bool kAddsMaxima = false, kRoundsInRegisters = true;
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
  template <int kRegistersInUse>
  [[gnu::always_inline]] static void round(const Register (&sums)[kRegistersInUse], int32_t, const ByteNorm& norm,
                                           const uint8_t* residual, uint8_t* y) {
    const Register lower_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    Register distances[(kRegistersInUse + 1) / 2];
#pragma GCC unroll 2
    for (int j = 0; j < kRegistersInUse; j += 2) {
      const Register next = j + 1 < kRegistersInUse ? sums[j + 1] : zero();
      distances[j / 2] = _mm512_permutex2var_epi32(sums[j], lower_halves, next);
    }
    round_to_bytes<8 * kRegistersInUse>(distances, norm, residual, y);
  }
};

// Two 16-bit words a lane.
struct Words : Bytes {
  static constexpr int kLanes = 16, kDepth = 4;

  static Register broadcast(const uint8_t* x) {
    int32_t two;
    std::memcpy(&two, x, sizeof two);
    return _mm512_set1_epi32(two);
  }
  static Register add(Register sums, Register x, Register w) {
    return _mm512_add_epi32(sums, _mm512_madd_epi16(x, w));
  }
  static void store(Register sums, int32_t* to) { _mm512_storeu_si512(to, sums); }
  template <int kRegistersInUse>
  [[gnu::always_inline]] static void round(const Register (&sums)[kRegistersInUse], int32_t, const ByteNorm& norm,
                                           const uint8_t* residual, uint8_t* y) {
    round_to_bytes<16 * kRegistersInUse>(sums, norm, residual, y);
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
