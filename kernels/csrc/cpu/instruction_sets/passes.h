// Every pass in one instruction set. A file of this folder includes a `Simd` and then this; CMake compiles that file,
// and no other, for the set.
#pragma once

#include "csrc/cpu/simd/operations.h"

namespace addertrain::cpu {
namespace {

// Before the passes are read, each of which would complain in its own way.
static_assert(SimdOperations<Simd>, "Simd lacks an operation that simd/operations.h lists");

}  // namespace
}  // namespace addertrain::cpu

#include "csrc/cpu/ceilings.h"
#include "csrc/cpu/forward/units.h"
#include "csrc/cpu/grad_input/both.h"
#include "csrc/cpu/grouped/forward.h"
#include "csrc/cpu/grouped/grad_input.h"
#include "csrc/cpu/grouped/grad_weight.h"
#include "csrc/cpu/kernels.h"
#include "csrc/cpu/norm/passes.h"
#include "csrc/cpu/power/forward.h"
#include "csrc/cpu/power/grad_input.h"
#include "csrc/cpu/power/grad_weight.h"
#include "csrc/cpu/squares.h"

namespace addertrain::cpu {
namespace {

constexpr Kernels all_passes(const char* name) {
  return {name,
          kNormPasses,
          kSquareSums,
          kForwardPass,
          kGradInputPass,
          kBothGradients,
          kGroupedForwardPass,
          kGroupedGradInputPass,
          kGroupedGradWeight,
          kPowerForwardPass,
          kPowerGradInputPass,
          kPowerGradWeightPass,
          spin};
}

}  // namespace
}  // namespace addertrain::cpu
