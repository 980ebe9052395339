// Which instruction set serves this processor.
#pragma once

#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {

enum class InstructionSet : int64_t { kBest = 0, kAvx512 = 1, kAvx2 = 2, kPortable = 3, kNeon = 4 };

constexpr int64_t kWholeRegister = INT64_MAX;

// The kernels in use, for `along` filters (forward) or channels (input gradient) along the registers.
const Kernels& kernels_for(int64_t along);

// Uses `set` from now on, for tests and benchmarks; false where the processor lacks it.
bool use_instruction_set(InstructionSet set);

// Which set's kernels are in use.
InstructionSet instruction_set_in_use();

}  // namespace addertrain::cpu
