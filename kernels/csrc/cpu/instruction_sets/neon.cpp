// The passes in NEON.
#include "csrc/cpu/simd/neon.h"
// ^ first: the passes are written in its terms
#include "csrc/cpu/instruction_sets/passes.h"

namespace addertrain::cpu {

const Kernels& neon_kernels() {
  static constexpr Kernels kernels = all_passes("neon");
  return kernels;
}

}  // namespace addertrain::cpu
