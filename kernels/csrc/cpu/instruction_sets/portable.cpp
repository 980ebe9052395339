// The passes in the compiler's own vectors.
#include "csrc/cpu/simd/portable.h"
// ^ first: the passes are written in its terms
#include "csrc/cpu/instruction_sets/passes.h"

namespace addertrain::cpu {

const Kernels& portable_kernels() {
  static constexpr Kernels kernels = all_passes("portable");
  return kernels;
}

}  // namespace addertrain::cpu
