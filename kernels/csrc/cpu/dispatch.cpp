#include "csrc/cpu/dispatch.h"

#include <atomic>

namespace addertrain::cpu {
namespace {

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

const Kernels* find(InstructionSet set) {
#if defined(__x86_64__)
  const bool is_any = set == InstructionSet::kBest;
  if ((is_any || set == InstructionSet::kAvx512) && has_avx512()) return &avx512_kernels();
  if ((is_any || set == InstructionSet::kAvx2) && has_avx2()) return &avx2_kernels();
#endif
  if (set == InstructionSet::kBest || set == InstructionSet::kPortable) return &portable_kernels();
  return nullptr;
}

std::atomic<const Kernels*> in_use{nullptr};

}  // namespace

const Kernels& kernels_for(int64_t along) {
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
#endif
  return InstructionSet::kPortable;
}

}  // namespace addertrain::cpu
