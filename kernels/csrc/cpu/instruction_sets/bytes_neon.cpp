// Distances of bytes in NEON with the dot product of Armv8.2: UABD, and UDOT by ones adds four neighbouring
// differences to a sum of 32 bits.
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace addertrain::cpu {
namespace {

struct Bytes {
  using Register = uint32x4_t;  // bytes of x and w, four a lane, or sums
  static constexpr int kLanes = 4, kDepth = 4, kRegisters = 4;
  static constexpr bool kAddsMaxima = false, kRoundsInRegisters = false;
  static constexpr int positions(int registers) { return registers == 4 ? 5 : registers == 3 ? 6 : 8; }

  static Register zero() { return vdupq_n_u32(0); }
  static Register load(const uint8_t* w) { return vreinterpretq_u32_u8(vld1q_u8(w)); }
  static Register broadcast(const uint8_t* x) {
    uint32_t four;
    std::memcpy(&four, x, sizeof four);
    return vdupq_n_u32(four);
  }
  static Register add(Register sums, Register x, Register w) {
    return vdotq_u32(sums, vabdq_u8(vreinterpretq_u8_u32(x), vreinterpretq_u8_u32(w)), vdupq_n_u8(1));
  }
  static void store(Register sums, int32_t* to) { vst1q_s32(to, vreinterpretq_s32_u32(sums)); }
};

// Two 16-bit words a lane.
struct Words : Bytes {
  static Register add(Register sums, Register x, Register w) {
    const int16x8_t a = vreinterpretq_s16_u32(x), b = vreinterpretq_s16_u32(w);
    const int32x4_t first = vmull_s16(vget_low_s16(a), vget_low_s16(b)), rest = vmull_high_s16(a, b);
    return vaddq_u32(sums, vreinterpretq_u32_s32(vpaddq_s32(first, rest)));
  }
};

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& neon_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("neon");
  return kernels;
}

}  // namespace addertrain::cpu
