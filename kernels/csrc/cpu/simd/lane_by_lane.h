// What instruction sets without compression do lane by lane. `Reg` is a vector type of the compiler's.
#pragma once

#include <cstdint>
#include <cstring>

namespace addertrain::cpu {
namespace {

// See Simd::compress_non_zeros in simd/avx512.h.
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

// See Simd::compress_entries.
template <int kLanes, typename Reg>
inline uint32_t compress_table(const Reg& value, const int32_t* table, float* values, int32_t* entries) {
  uint32_t lanes = 0;
  for (int i = 0, count = 0; i < kLanes; ++i) {
    values[count] = value[i];
    entries[count] = table[i];
    count += value[i] != 0;
    lanes |= static_cast<uint32_t>(value[i] != 0) << i;
  }
  return lanes;
}

// See Simd::expand_entries.
template <int kLanes, typename Reg>
inline Reg expand_lanes(uint32_t lanes, const float* from) {
  Reg to{};
  for (int i = 0; i < kLanes; ++i)
    if (lanes >> i & 1) to[i] = *from++;
  return to;
}

template <int kLanes, typename Reg>
inline void transpose_lanes(Reg (&v)[kLanes]) {
  float lanes[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) lanes[j][i] = v[i][j];
  std::memcpy(v, lanes, sizeof(lanes));
}

}  // namespace
}  // namespace addertrain::cpu
