// The sum of squares of values side by side, in one instruction set.
//
// A square of a float32 is exact in float64, so that every instruction set rounds the same sums: lane j adds the values
// j, j + 32, ..., and then the upper half of the lanes is added to the lower one until one lane is left.
#pragma once

#include <cstdint>

#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {
namespace {

constexpr int kSquareLanes = 32;  // enough registers in flight to hide the latency of the sums

template <typename T>
inline double sum_of_squares(const T* values, int64_t count) {
  double lanes[kSquareLanes] = {};
  int64_t i = 0;
  for (; i + kSquareLanes <= count; i += kSquareLanes)
    for (int j = 0; j < kSquareLanes; ++j) lanes[j] += static_cast<double>(values[i + j]) * values[i + j];
  for (int j = 0; i + j < count; ++j) lanes[j] += static_cast<double>(values[i + j]) * values[i + j];
  for (int half = kSquareLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  return lanes[0];
}

constexpr SquareSums kSquareSums{sum_of_squares<float>, sum_of_squares<double>};

}  // namespace
}  // namespace addertrain::cpu
