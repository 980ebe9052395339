// What instruction sets without compression do lane by lane. `Reg` is a vector type of the compiler's.
#pragma once

#include <cstdint>

namespace addertrain::cpu {
namespace {

// See Simd::compress_non_zeros in simd_avx512.h.
template <int kLanes, typename Reg>
inline int compress_lanes(const Reg& value, int32_t first, float* values, int32_t* lanes) {
  int count = 0;
  for (int i = 0; i < kLanes; ++i) {
    values[count] = value[i];
    lanes[count] = first + i;
    count += value[i] != 0;
  }
  return count;
}

template <int kLanes, typename Reg>
inline void transpose_lanes(Reg (&v)[kLanes]) {
  Reg columns[kLanes] = {};
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) columns[j][i] = v[i][j];
  for (int i = 0; i < kLanes; ++i) v[i] = columns[i];
}

}  // namespace
}  // namespace addertrain::cpu
