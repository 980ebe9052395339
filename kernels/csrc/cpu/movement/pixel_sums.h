// Sums over the channels of pixels, for one instruction set (a `Simd` is in scope): of x in the forward pass, of dY in the
// input gradient.
#pragma once

#include "csrc/cpu/movement/pack.h"
#include "csrc/cpu/movement/units.h"

namespace addertrain::cpu {
namespace {

// Adds up one pixel's channels register by register, and lowers `lowest` to their minimum.
inline Simd::Reg fold_pixel(const float* pixel, int64_t C, Simd::Reg& lowest) {
  Simd::Reg sum = Simd::zero();
  int64_t c = 0;
  for (; c + Simd::kLanes <= C; c += Simd::kLanes) {
    const Simd::Reg value = Simd::load(pixel + c);
    lowest = Simd::min(value, lowest);
    sum = Simd::add(sum, value);
  }
  if (c < C) {
    const Simd::Reg value = Simd::load_first(pixel + c, static_cast<int>(C - c));
    lowest = Simd::min(value, lowest);
    sum = Simd::add(sum, value);
  }
  return sum;
}

inline void sum_row(const float* pixels, int64_t columns, int64_t C, Simd::Reg& lowest, float* sums) {
  int64_t v = 0;
  for (; v + Simd::kLanes <= columns; v += Simd::kLanes) {
    if (C == 1) {
      const Simd::Reg value = Simd::load(pixels + v);
      lowest = Simd::min(value, lowest);
      Simd::store(sums + v, value);
      continue;
    }
    Simd::Reg folded[Simd::kLanes];
    for (int i = 0; i < Simd::kLanes; ++i) folded[i] = fold_pixel(pixels + (v + i) * C, C, lowest);
    Simd::store(sums + v, Simd::sums(folded));
  }
  for (; v < columns; ++v) sums[v] = Simd::sum(fold_pixel(pixels + v * C, C, lowest));
}

inline float lowest_lane(Simd::Reg value) {
  float lanes[Simd::kLanes];
  Simd::store(lanes, value);
  return *std::min_element(lanes, lanes + Simd::kLanes);
}

// Writes sum_c x of every pixel in the window; returns the least x, or 0 if no x is negative. The minimum drops a NaN,
// and the sums keep it.
inline float sum_pixels(const Buffer& x, int64_t images, const Window& window, int64_t C, float* sums) {
  Simd::Reg lowest = Simd::zero();
  for (int64_t n = 0; n < images; ++n)
    for (int64_t i = 0; i < window.rows; ++i, sums += window.columns)
      sum_row(x.data + n * x.image_pitch + i * x.row_pitch, window.columns, C, lowest, sums);
  return lowest_lane(lowest);
}

}  // namespace
}  // namespace addertrain::cpu
