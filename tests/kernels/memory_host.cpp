// Asks a thread's memory for more than there is, and then for a little. Returns whether the little may be used.
#include <new>

#include "csrc/cpu/movement/units.h"

extern "C" bool recovers_from_bad_alloc() {
  addertrain::cpu::Memory<float> memory;
  memory.entries(10);
  try {
    memory.entries(int64_t{1} << 56);
    return false;
  } catch (const std::bad_alloc&) {
  }
  float* entries = memory.entries(2000);
  if (entries == nullptr) return false;
  entries[1999] = 1.0f;
  return memory.entries(1000) == entries;
}
