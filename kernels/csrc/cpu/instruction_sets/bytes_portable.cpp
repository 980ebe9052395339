// Distances of bytes for any processor. Every x86-64 processor has psadbw, which adds up eight neighbouring differences;
// others run the compiler's own vectors.
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace addertrain::cpu {
namespace {

#if defined(__SSE2__)

struct Bytes {
  using Register = __m128i;
  static constexpr int kLanes = 2, kDepth = 8, kRegisters = 2;
  static constexpr bool kAddsMaxima = false, kRoundsInRegisters = false;
  static constexpr int positions(int registers) { return registers == 2 ? 4 : 8; }

  static Register zero() { return _mm_setzero_si128(); }
  static Register load(const uint8_t* w) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(w)); }
  static Register broadcast(const uint8_t* x) {
    int64_t eight;
    std::memcpy(&eight, x, sizeof eight);
    return _mm_set1_epi64x(eight);
  }
  static Register add(Register sums, Register x, Register w) { return _mm_add_epi32(sums, _mm_sad_epu8(x, w)); }
  static void store(Register sums, int32_t* to) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi32(sums, _MM_SHUFFLE(3, 1, 2, 0)));
  }
};

// Two 16-bit words a lane.
struct Words : Bytes {
  static constexpr int kLanes = 4, kDepth = 4;

  static Register broadcast(const uint8_t* x) {
    int32_t two;
    std::memcpy(&two, x, sizeof two);
    return _mm_set1_epi32(two);
  }
  static Register add(Register sums, Register x, Register w) { return _mm_add_epi32(sums, _mm_madd_epi16(x, w)); }
  static void store(Register sums, int32_t* to) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), sums); }
};

#else

struct Bytes {
  using Register = uint32_t __attribute__((vector_size(16)));
  using Channels = uint8_t __attribute__((vector_size(16)));
  static constexpr int kLanes = 4, kDepth = 4, kRegisters = 4;
  static constexpr bool kAddsMaxima = false, kRoundsInRegisters = false;
  static constexpr int positions(int registers) { return registers == 4 ? 2 : 4; }

  static Register zero() { return Register{}; }
  static Register load(const uint8_t* w) {
    Register loaded;
    std::memcpy(&loaded, w, sizeof loaded);
    return loaded;
  }
  static Register broadcast(const uint8_t* x) {
    uint32_t four;
    std::memcpy(&four, x, sizeof four);
    return Register{four, four, four, four};
  }
  static Register add(Register sums, Register x, Register w) {
    const auto a = reinterpret_cast<Channels>(x), b = reinterpret_cast<Channels>(w);
    const auto differences = reinterpret_cast<Register>(a > b ? a - b : b - a);
    const Register pairs = (differences & 0x00ff00ff) + ((differences >> 8) & 0x00ff00ff);
    return sums + (pairs & 0xffff) + (pairs >> 16);
  }
  static void store(Register sums, int32_t* to) { std::memcpy(to, &sums, sizeof sums); }
};

// Two 16-bit words a lane.
struct Words : Bytes {
  using Signed = int32_t __attribute__((vector_size(16)));

  static Register add(Register sums, Register x, Register w) {
    const auto a = reinterpret_cast<Signed>(x), b = reinterpret_cast<Signed>(w);
    const auto first = reinterpret_cast<Signed>(x << 16) >> 16, first_w = reinterpret_cast<Signed>(w << 16) >> 16;
    return sums + reinterpret_cast<Register>(first * first_w + (a >> 16) * (b >> 16));
  }
};

#endif

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& portable_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("portable");
  return kernels;
}

}  // namespace addertrain::cpu
