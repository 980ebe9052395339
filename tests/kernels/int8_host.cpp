// Every width of csrc/cpu/int8/distances.h that this processor has, by number.
#include "csrc/cpu/int8/distances.h"

extern "C" bool byte_tile(int number, const uint8_t* x, const uint8_t* w, int64_t pitch, int32_t* sums) {
  using namespace addertrain::cpu;
  ByteTile tile = number == 0 ? byte_tile_portable : nullptr;
#if defined(__x86_64__)
  if (number == 1 && __builtin_cpu_supports("avx2")) tile = byte_tile_avx2;
  if (number == 2 && __builtin_cpu_supports("avx512bw")) tile = byte_tile_avx512;
#endif
  if (!tile) return false;
  int32_t result[kByteRows][kByteRows];
  tile(x, w, pitch, result);
  for (int i = 0; i < kByteRows * kByteRows; ++i) sums[i] = result[i / kByteRows][i % kByteRows];
  return true;
}
