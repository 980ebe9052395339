// Maxima and sums over pixels of bytes, [N][H][W][C]. Plain loops that the compiler vectorises.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "csrc/cpu/int8/byte_kernels.h"

namespace addertrain::cpu {
namespace {

inline void raise(uint8_t* to, const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = std::max(to[i], from[i]);
}

// Rows [begin, end) of y as [N * P][Q][C], each the maximum over a window of x; pixels outside the image do not count.
void highest(const Layer& d, const uint8_t* x, int64_t begin, int64_t end, uint8_t* y) {
  const int64_t row_bytes = d.W * d.C;
  const auto column_maxima = std::make_unique<uint8_t[]>(row_bytes);
  for (int64_t m = begin; m < end; ++m) {
    std::memset(column_maxima.get(), 0, row_bytes);
    const int64_t first = m % d.P * d.stride_h - d.padding_h;
    for (int64_t h = std::max<int64_t>(first, 0); h < std::min(d.H, first + d.R); ++h)
      raise(column_maxima.get(), x + (m / d.P * d.H + h) * row_bytes, row_bytes);
    for (int64_t q = 0; q < d.Q; ++q) {
      uint8_t* to = y + (m * d.Q + q) * d.C;
      std::memset(to, 0, d.C);
      const int64_t left = q * d.stride_w - d.padding_w;
      for (int64_t w = std::max<int64_t>(left, 0); w < std::min(d.W, left + d.S); ++w)
        raise(to, column_maxima.get() + w * d.C, d.C);
    }
  }
}

// sums[n][c] over the `pixels` of images [begin, end); from 2^31 / 255 pixels on they need more than 32 bits.
void add_up_images(const uint8_t* x, int64_t pixels, int64_t C, int64_t begin, int64_t end, int64_t* sums) {
  for (int64_t n = begin; n < end; ++n) {
    int64_t* to = sums + n * C;
    std::fill(to, to + C, int64_t{0});
    for (int64_t i = 0; i < pixels; ++i) {
      const uint8_t* from = x + (n * pixels + i) * C;
      for (int64_t c = 0; c < C; ++c) to[c] += from[c];
    }
  }
}

}  // namespace
}  // namespace addertrain::cpu
