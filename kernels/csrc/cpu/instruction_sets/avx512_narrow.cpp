// The passes in half registers of AVX-512.
#include "csrc/cpu/simd/avx512_narrow.h"
// ^ first: the passes are written in its terms
#include "csrc/cpu/instruction_sets/passes.h"

namespace addertrain::cpu {

const Kernels& avx512_narrow_kernels() {
  static constexpr Kernels kernels = all_passes("avx512_narrow");
  return kernels;
}

}  // namespace addertrain::cpu
