#include "csrc/cpu/dispatch.h"

#include <atomic>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace addertrain::cpu {
namespace {

struct Choice {
  InstructionSet set;
  const Kernels* kernels;
  const ByteKernels* bytes;
};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Registers of 64 bytes need an extension of their own, and so does VNNI: the first servers with AVX-512 lack it.
bool has_avx512_bytes() { return has_avx512() && __builtin_cpu_supports("avx512bw"); }
bool has_avx512_vnni() { return has_avx512_bytes() && __builtin_cpu_supports("avx512vnni"); }
#elif defined(__aarch64__)
// UDOT; processors before Armv8.2 lack it.
bool has_dot_product() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#endif

// What this processor has, the best first.
std::vector<Choice> choices() {
  std::vector<Choice> found;
#if defined(__x86_64__)
  const ByteKernels* without_vnni = has_avx512_bytes() ? &avx512_byte_kernels() : &avx2_byte_kernels();
  if (has_avx512()) {
    const ByteKernels* best = has_avx512_vnni() ? &avx512_vnni_byte_kernels() : without_vnni;
    found.push_back({InstructionSet::kAvx512, &avx512_kernels(), best});
    found.push_back({InstructionSet::kAvx512WithoutVnni, &avx512_kernels(), without_vnni});
  }
  if (has_avx2()) found.push_back({InstructionSet::kAvx2, &avx2_kernels(), &avx2_byte_kernels()});
#elif defined(__aarch64__)
  const ByteKernels* bytes = has_dot_product() ? &neon_byte_kernels() : &portable_byte_kernels();
  found.push_back({InstructionSet::kNeon, &neon_kernels(), bytes});  // every such processor has it
#endif
  found.push_back({InstructionSet::kPortable, &portable_kernels(), &portable_byte_kernels()});
  return found;
}

const Choice* find(InstructionSet set) {
  static const std::vector<Choice> all = choices();
  for (const Choice& choice : all)
    if (set == InstructionSet::kBest || set == choice.set) return &choice;
  return nullptr;
}

std::atomic<const Choice*> in_use{nullptr};

const Choice& choice_in_use() {
  const Choice* found = in_use.load(std::memory_order_acquire);
  if (!found) {
    found = find(InstructionSet::kBest);
    in_use.store(found, std::memory_order_release);
  }
  return *found;
}

}  // namespace

const Kernels& kernels_for([[maybe_unused]] int64_t along) {
  const Kernels* found = choice_in_use().kernels;
#if defined(__x86_64__)
  constexpr int64_t kHalfRegister = 8;
  if (found == &avx512_kernels() && along <= kHalfRegister) return avx512_narrow_kernels();
#endif
  return *found;
}

const ByteKernels& byte_kernels() { return *choice_in_use().bytes; }

bool use_instruction_set(InstructionSet set) {
  const Choice* found = find(set);
  if (!found) return false;
  in_use.store(found, std::memory_order_release);
  return true;
}

InstructionSet instruction_set_in_use() {
  const InstructionSet set = choice_in_use().set;
  return set == InstructionSet::kAvx512WithoutVnni ? InstructionSet::kAvx512 : set;
}

}  // namespace addertrain::cpu
