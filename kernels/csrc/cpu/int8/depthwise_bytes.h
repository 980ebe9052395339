// Distances of bytes in depthwise layers: every channel against its own filter. Nothing is summed over channels, so they
// lie side by side, sixteen and more an instruction, in sums of 16 bits. Plain C++ that compilers vectorise, no torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "device/layer.h"

namespace addertrain::cpu {

// x as [N][H][W][channels]; `d` holds the sizes of one group, one channel and one filter.
struct DepthwiseByteCall {
  static constexpr int64_t kMostTaps = 257;  // 255 * 257 is the largest number of 16 bits
  static constexpr int kTogether = 64;

  Layer d;
  int64_t channels;
  const uint8_t* x;
  std::unique_ptr<uint8_t[]> filters;  // [r][s][channel]
  std::unique_ptr<uint8_t[]> zeros;    // the pixel outside the image

  DepthwiseByteCall(const Layer& layer, int64_t groups, const uint8_t* x_nhwc, const uint8_t* w,
                    const ImageStrides& w_strides)
      : d(layer),
        channels(groups),
        x(x_nhwc),
        filters(std::make_unique<uint8_t[]>(d.R * d.S * groups)),
        zeros(std::make_unique<uint8_t[]>(groups)) {
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s)
        for (int64_t c = 0; c < channels; ++c)
          filters[(r * d.S + s) * channels + c] = w[c * w_strides.n + r * w_strides.h + s * w_strides.w];
  }

  static bool serves(const Layer& d) { return d.C == 1 && d.O == 1 && d.R * d.S <= kMostTaps; }
  int64_t positions() const { return d.N * d.P * d.Q; }

  // The pixels under position m, tap by tap.
  void list_pixels(int64_t m, const uint8_t** pixels) const {
    const int64_t q = m % d.Q, p = m / d.Q % d.P, n = m / d.Q / d.P;
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s) {
        const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
        const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
        const bool is_inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
        *pixels++ = is_inside ? x + ((n * d.H + h) * d.W + v) * channels : zeros.get();
      }
  }

  // Positions [begin, end) of y as [N][P][Q][channels].
  void compute(int64_t begin, int64_t end, int32_t* y) const {
    const uint8_t* pixels[kMostTaps];
    for (int64_t m = begin; m < end; ++m) {
      list_pixels(m, pixels);
      for (int64_t c = 0; c < channels; c += kTogether) {
        const int64_t count = std::min<int64_t>(kTogether, channels - c);
        if (count == kTogether)
          add_distances(pixels, c, kTogether, y + m * channels + c);
        else
          add_distances(pixels, c, count, y + m * channels + c);
      }
    }
  }

 private:
  inline void add_distances(const uint8_t* const* pixels, int64_t c, int64_t count, int32_t* y) const {
    uint16_t sums[kTogether] = {};
    for (int64_t tap = 0; tap < d.R * d.S; ++tap) {
      const uint8_t* a = pixels[tap] + c;
      const uint8_t* b = filters.get() + tap * channels + c;
      for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<uint8_t>(std::max(a[i], b[i]) - std::min(a[i], b[i]));
    }
    for (int64_t i = 0; i < count; ++i) y[i] = sums[i];
  }
};

}  // namespace addertrain::cpu
