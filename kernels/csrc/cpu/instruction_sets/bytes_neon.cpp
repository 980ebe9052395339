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
  static constexpr bool kAddsMaxima = false;
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

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/int8/passes.h"

namespace addertrain::cpu {

const ByteKernels& neon_byte_kernels() {
  static constexpr ByteKernels kernels = byte_kernels_named("neon");
  return kernels;
}

}  // namespace addertrain::cpu
