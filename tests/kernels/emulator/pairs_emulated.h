// device/pairs.h for the emulator. The lanes of a warp meet at the block's barrier, so every thread of a block must
// execute the same number of mma's.
#pragma once

#include <algorithm>
#include <array>

#include "emulator.h"

namespace addertrain {

template <class T>
uint32_t pack_pair(float low, float high) {
  const T pair[2] = {from_float<T>(low), from_float<T>(high)};
  uint32_t word;
  std::memcpy(&word, pair, sizeof word);
  return word;
}
template <class T>
std::array<float, 2> unpack_pair(uint32_t word) {
  T pair[2];
  std::memcpy(pair, &word, sizeof pair);
  return {to_float(pair[0]), to_float(pair[1])};
}

template <class T>
uint32_t gradient_pair(uint32_t pair, float) {
  return pair;
}
template <>
inline uint32_t gradient_pair<__nv_bfloat16>(uint32_t pair, float scale) {
  const auto g = unpack_pair<__nv_bfloat16>(pair);
  return pack_pair<__half>(g[0] * scale, g[1] * scale);
}

// What the lanes of a block hand to mma, as float32: elements a[4][2], b[2][2].
struct Operands {
  float a[4][2], b[2][2];
};

template <class T>
struct PairOps {
  static inline const uint32_t kOnes = pack_pair<T>(1.0f, 1.0f);
  static uint32_t minimum(uint32_t a, uint32_t b) {
    const auto p = unpack_pair<T>(a), q = unpack_pair<T>(b);
    return pack_pair<T>(std::fmin(p[0], q[0]), std::fmin(p[1], q[1]));  // of a NaN and a number the number
  }
  template <bool kHigh>
  static uint32_t saturated_difference(uint32_t a, uint32_t x) {
    const auto p = unpack_pair<T>(a);
    const float subtracted = unpack_pair<T>(x)[kHigh];
    return pack_pair<T>(saturate(p[0] - subtracted), saturate(p[1] - subtracted));
  }
  static void mma(float (&sum)[4], const uint32_t (&elements)[4], uint32_t low, uint32_t high) {
    // Two buffers in turn: nobody is two barriers ahead of a reader.
    static std::array<std::array<Operands, 1024>, 2> buffers;
    std::array<Operands, 1024>& lanes = buffers[emulator::self->num_exchanges++ % 2];
    Operands& mine = lanes[threadIdx.x];
    for (int i = 0; i < 4; ++i) std::ranges::copy(unpack_pair<T>(elements[i]), mine.a[i]);
    std::ranges::copy(unpack_pair<T>(low), mine.b[0]);
    std::ranges::copy(unpack_pair<T>(high), mine.b[1]);
    barrier();
    const Operands* warp = &lanes[threadIdx.x / 32 * 32];
    const unsigned row = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    for (int q = 0; q < 4; ++q) {  // element (row + 8*(q/2), quad*2 + q%2)
      float total = 0.0f;
      for (int t = 0; t < 4; ++t) {
        const Operands &a = warp[row * 4 + t], &b = warp[(quad * 2 + q % 2) * 4 + t];
        for (int h = 0; h < 2; ++h)
          total += a.a[q / 2 + 2 * h][0] * b.b[h][0] + a.a[q / 2 + 2 * h][1] * b.b[h][1];
      }
      sum[q] += total;
    }
  }
};

}  // namespace addertrain
