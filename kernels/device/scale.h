// The power of two that brings a bfloat16 dY into float16's range: its largest finite magnitude to 2^14 or just above.
//
// Then numbers down to 2^-31 of the largest are exact in float16, which has 11 digits where bfloat16 has 8, and smaller
// ones are off by 2^-39 of the largest at most: below the rounding of any float32 sum that holds it. The order of a
// maximum does not matter, so that each block takes its own.
#pragma once

#include "device/params.h"
#include "device/platform.h"

namespace addertrain {

constexpr int kScaleThreads = 256;

struct MagnitudeParams {
  const uint16_t* values;  // bfloat16
  ImageStrides strides;
  int64_t count;
  int channels, h, w;
  bool is_flat;            // side by side in memory in any order, and 16 bytes aligned
  int64_t step;            // threads of the launch
  uint32_t* maxima;        // a block's largest finite magnitude, as bits
};

// Bits without the sign order as magnitudes do; infinities and NaN count as 0.
ADDERTRAIN_DEVICE uint32_t finite_magnitude(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffu;
  return magnitude < 0x7f80u ? magnitude : 0u;
}

// The largest of a block's numbers, for thread 0; 0 for the others.
ADDERTRAIN_DEVICE uint32_t block_maximum(uint32_t own) {
  uint32_t* const shared = reinterpret_cast<uint32_t*>(dynamic_shared());
  shared[threadIdx.x] = own;
  for (unsigned half = kScaleThreads / 2; half > 0; half /= 2) {
    barrier();
    if (threadIdx.x < half) shared[threadIdx.x] = max(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  return threadIdx.x == 0 ? shared[0] : 0u;
}

struct alignas(16) Bfloat16Words {
  uint32_t v[4];
};

__global__ void __launch_bounds__(kScaleThreads) adder_magnitude_kernel(const __grid_constant__ MagnitudeParams p) {
  const int64_t first = int64_t{blockIdx.x} * kScaleThreads + threadIdx.x;
  uint32_t largest = 0;
  if (p.is_flat) {
    for (int64_t i = first; i < p.count / 8; i += p.step) {
      const auto words = load_vector<Bfloat16Words>(p.values + 8 * i);
#pragma unroll
      for (const uint32_t word : words.v)
        largest = max(largest, max(finite_magnitude(word), finite_magnitude(word >> 16)));
    }
    for (int64_t i = p.count / 8 * 8 + first; i < p.count; i += p.step)
      largest = max(largest, finite_magnitude(p.values[i]));
  } else {
    for (int64_t i = first; i < p.count; i += p.step) {
      const int64_t column = i / p.channels, row = column / p.w;
      const uint32_t bits = p.values[row / p.h * p.strides.n + i % p.channels * p.strides.c +
                                     row % p.h * p.strides.h + column % p.w * p.strides.w];
      largest = max(largest, finite_magnitude(bits));
    }
  }
  largest = block_maximum(largest);
  if (threadIdx.x == 0) p.maxima[blockIdx.x] = largest;
}

struct ScaleParams {
  const uint32_t* maxima;
  int num_maxima;
  Scale* scale;
};

ADDERTRAIN_DEVICE float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  return bits_as_float(bits);
}

__global__ void __launch_bounds__(kScaleThreads) adder_scale_kernel(const __grid_constant__ ScaleParams p) {
  uint32_t largest = 0;
  for (int i = threadIdx.x; i < p.num_maxima; i += kScaleThreads) largest = max(largest, p.maxima[i]);
  largest = block_maximum(largest);
  if (threadIdx.x != 0) return;
  const int exponent = min(14 + 127 - static_cast<int>(largest >> 7), 100);  // 2^100 is enough for a dY below 2^-86
  *p.scale = Scale{power_of_two(exponent), power_of_two(-exponent)};
}

}  // namespace addertrain
