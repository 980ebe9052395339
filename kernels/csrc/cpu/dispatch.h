// Which instruction set serves this processor.
#pragma once

#include "csrc/cpu/int8/byte_kernels.h"
#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {

// kAvx512WithoutVnni imitates a processor with AVX-512 but without VNNI, which only distances of bytes use.
enum class InstructionSet : int64_t {
  kBest = 0,
  kAvx512 = 1,
  kAvx2 = 2,
  kPortable = 3,
  kNeon = 4,
  kAvx512WithoutVnni = 5
};

constexpr int64_t kWholeRegister = INT64_MAX;  // of kernels_for: passes that fill registers whatever the sizes

// The kernels in use for a pass with `along` filters (forward) or channels (input gradient) along the registers.
const Kernels& kernels_for(int64_t along);

// The kernels in use for distances of bytes.
const ByteKernels& byte_kernels();

// Uses `set` from now on, for tests and benchmarks; returns false if the processor lacks it.
bool use_instruction_set(InstructionSet set);

// The set of the kernels in use. AVX-512 with and without VNNI counts as one set.
InstructionSet instruction_set_in_use();

}  // namespace addertrain::cpu
