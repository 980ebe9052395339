// The passes in AVX2.
#include "csrc/cpu/simd/avx2.h"
// ^ first: the passes are written in its terms
#include "csrc/cpu/instruction_sets/passes.h"

namespace addertrain::cpu {

const Kernels& avx2_kernels() {
  static constexpr Kernels kernels = all_passes("avx2");
  return kernels;
}

}  // namespace addertrain::cpu
