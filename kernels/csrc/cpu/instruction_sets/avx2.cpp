// The kernels of one instruction set; CMake compiles this file, and no other, for it.
#include "csrc/cpu/simd/avx2.h"
// ^ first: everything below is written in its terms
#include "csrc/cpu/ceilings.h"
#include "csrc/cpu/forward/units.h"
#include "csrc/cpu/grad_input/units.h"
#include "csrc/cpu/norm/passes.h"
#include "csrc/cpu/squares.h"

namespace addertrain::cpu {

const Kernels& avx2_kernels() {
  static const Kernels kernels{"avx2", kNormPasses, kSquareSums, kForwardPass, kGradInputPass, spin};
  return kernels;
}

}  // namespace addertrain::cpu
