// Two 16-bit elements a word, and the tensor-core instruction that adds them up in float32.
//
// Forward: min(x, w) is one of the two, so every element is exact in float16 and in bfloat16, and
// sum -|x - w| = 2 sum min(x, w) - sum x - sum w. Input gradient: sat(w' - x') in float16, rounded once, whatever the
// tensors are: bfloat16 has no saturating subtraction, and an element between 0 and 1 needs no range.
#pragma once

#include "device/platform.h"

namespace addertrain {

// Eight neighbouring elements.
struct alignas(16) Words4 {
  uint32_t v[4];
};

}  // namespace addertrain

#ifdef __CUDACC__

namespace addertrain {

template <class T>
struct PairOps;

template <>
struct PairOps<__half> {
  static constexpr uint32_t kOnes = 0x3c003c00u;
  static ADDERTRAIN_DEVICE uint32_t minimum(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("min.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
  }
  // sat(a - x) of both elements of `a`, x the low or the high half of a word: an operand's modifier.
  template <bool kHigh>
  static ADDERTRAIN_DEVICE uint32_t saturated_difference(uint32_t a, uint32_t x) {
    const __half2 pair = *reinterpret_cast<const __half2*>(&x);
    const __half2 both = kHigh ? __high2half2(pair) : __low2half2(pair);
    const __half2 d = __hsub2_sat(*reinterpret_cast<const __half2*>(&a), both);
    return *reinterpret_cast<const uint32_t*>(&d);
  }
  // sum += elements (16 x 16, row by row) times selected (16 x 8, column by column).
  static ADDERTRAIN_DEVICE void mma(float (&sum)[4], const uint32_t (&elements)[4], uint32_t low, uint32_t high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(elements[0]), "r"(elements[1]), "r"(elements[2]), "r"(elements[3]), "r"(low), "r"(high));
  }
};

template <>
struct PairOps<__nv_bfloat16> {
  static constexpr uint32_t kOnes = 0x3f803f80u;
  static ADDERTRAIN_DEVICE uint32_t minimum(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("min.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
  }
  static ADDERTRAIN_DEVICE void mma(float (&sum)[4], const uint32_t (&elements)[4], uint32_t low, uint32_t high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(elements[0]), "r"(elements[1]), "r"(elements[2]), "r"(elements[3]), "r"(low), "r"(high));
  }
};

// Two numbers as one word, the first low.
template <class T>
ADDERTRAIN_DEVICE uint32_t pack_pair(float low, float high) {
  const T pair[2] = {from_float<T>(low), from_float<T>(high)};
  return static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(&pair[0])) |
         static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(&pair[1])) << 16;
}

// A word of dY for mma with float16 elements: as it is, or bfloat16 times a power of two.
template <class T>
ADDERTRAIN_DEVICE uint32_t gradient_pair(uint32_t pair, float) {
  return pair;
}
template <>
ADDERTRAIN_DEVICE uint32_t gradient_pair<__nv_bfloat16>(uint32_t pair, float scale) {
  const __half2 scaled = __floats2half2_rn(__uint_as_float(pair << 16) * scale,
                                           __uint_as_float(pair & 0xffff0000u) * scale);
  return *reinterpret_cast<const uint32_t*>(&scaled);
}

}  // namespace addertrain

#else
#include "pairs_emulated.h"
#endif
