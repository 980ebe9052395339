// The passes in AVX-512.
#include "csrc/cpu/simd/avx512.h"
// ^ first: the passes are written in its terms
#include "csrc/cpu/instruction_sets/passes.h"

namespace addertrain::cpu {

const Kernels& avx512_kernels() {
  static constexpr Kernels kernels = all_passes("avx512");
  return kernels;
}

}  // namespace addertrain::cpu
