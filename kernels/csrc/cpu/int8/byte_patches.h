// Distances of bytes over the positions of a layer: each position's patch is gathered as one row and held against the
// filters. Plain C++, no torch.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "csrc/cpu/int8/distances.h"
#include "device/layer.h"

namespace addertrain::cpu {

// x as [N][H][W][C] and the filters as rows in the order of a gathered patch, in fours, with zeros behind.
struct ByteCall {
  Layer d;
  const uint8_t* x;
  int64_t pitch;  // bytes of a row
  std::unique_ptr<uint8_t[]> filters;

  ByteCall(const Layer& layer, const uint8_t* x_nhwc, const uint8_t* w, const ImageStrides& w_strides)
      : d(layer),
        x(x_nhwc),
        pitch(round_up(d.R * d.S * d.C, kByteStep)),
        filters(std::make_unique<uint8_t[]>(round_up(d.O, kByteRows) * pitch)) {
    for (int64_t o = 0; o < d.O; ++o)
      for (int64_t r = 0; r < d.R; ++r)
        for (int64_t s = 0; s < d.S; ++s)
          for (int64_t c = 0; c < d.C; ++c)
            filters[o * pitch + (r * d.S + s) * d.C + c] =
                w[o * w_strides.n + c * w_strides.c + r * w_strides.h + s * w_strides.w];
  }
  int64_t positions() const { return d.N * d.P * d.Q; }
  int64_t blocks() const { return (positions() + kByteRows - 1) / kByteRows; }

  // The patch of output position m; what lies outside the image is 0.
  void gather(int64_t m, uint8_t* row) const {
    const int64_t q = m % d.Q, p = m / d.Q % d.P, n = m / d.Q / d.P;
    for (int64_t r = 0; r < d.R; ++r) {
      const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
      for (int64_t s = 0; s < d.S; ++s, row += d.C) {
        const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
        const bool is_inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
        if (is_inside) std::memcpy(row, x + ((n * d.H + h) * d.W + v) * d.C, d.C);
        else std::memset(row, 0, d.C);
      }
    }
  }

  // Blocks [begin, end) of four positions each; y as [N][P][Q][O].
  void compute(ByteTile tile, int64_t begin, int64_t end, int32_t* y) const {
    const auto rows = std::make_unique<uint8_t[]>(kByteRows * pitch);
    int32_t sums[kByteRows][kByteRows];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kByteRows, count = std::min<int64_t>(kByteRows, positions() - first);
      for (int64_t i = 0; i < count; ++i) gather(first + i, rows.get() + i * pitch);
      for (int64_t o = 0; o < d.O; o += kByteRows) {
        tile(rows.get(), filters.get() + o * pitch, pitch, sums);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t j = 0; j < std::min<int64_t>(kByteRows, d.O - o); ++j)
            y[(first + i) * d.O + o + j] = sums[i][j];
      }
    }
  }

 private:
  static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
};

}  // namespace addertrain::cpu
