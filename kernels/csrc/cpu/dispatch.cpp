#include "csrc/cpu/dispatch.h"

#include <atomic>

namespace addertrain::cpu {
namespace {

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

const Kernels* find(InstructionSet set) {
  const bool is_any = set == InstructionSet::kBest;
#if defined(__x86_64__)
  if ((is_any || set == InstructionSet::kAvx512) && has_avx512()) return &avx512_kernels();
  if ((is_any || set == InstructionSet::kAvx2) && has_avx2()) return &avx2_kernels();
#elif defined(__aarch64__)
  if (is_any || set == InstructionSet::kNeon) return &neon_kernels();  // every such processor has it
#endif
  if (is_any || set == InstructionSet::kPortable) return &portable_kernels();
  return nullptr;
}

std::atomic<const Kernels*> in_use{nullptr};

}  // namespace

const Kernels& kernels_for([[maybe_unused]] int64_t along) {
  const Kernels* found = in_use.load(std::memory_order_acquire);
  if (!found) {
    found = find(InstructionSet::kBest);
    in_use.store(found, std::memory_order_release);
  }
#if defined(__x86_64__)
  constexpr int64_t kHalfRegister = 8;
  if (found == &avx512_kernels() && along <= kHalfRegister) return avx512_narrow_kernels();
#endif
  return *found;
}

bool use_instruction_set(InstructionSet set) {
  const Kernels* found = find(set);
  if (!found) return false;
  in_use.store(found, std::memory_order_release);
  return true;
}

InstructionSet instruction_set_in_use() {
  const Kernels* found = &kernels_for(kWholeRegister);
#if defined(__x86_64__)
  if (found == &avx512_kernels()) return InstructionSet::kAvx512;
  if (found == &avx2_kernels()) return InstructionSet::kAvx2;
#elif defined(__aarch64__)
  if (found == &neon_kernels()) return InstructionSet::kNeon;
#endif
  return InstructionSet::kPortable;
}

}  // namespace addertrain::cpu
