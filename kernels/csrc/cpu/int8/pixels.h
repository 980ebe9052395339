// Where the patches of a unit's positions lie: a list of pixels for each tap, or gathered rows.
#pragma once

#include <vector>

#include "csrc/cpu/int8/pack.h"

namespace addertrain::cpu {
namespace {

// Whether tiles need the sum of a patch: only where their sums are those of max(x, w).
constexpr bool kNeedsSums = Bytes::kAddsMaxima;

// sums[i]: of the `length` bytes from pixel(i) on.
template <typename Set, typename Pixel>
void add_up_bytes(int64_t count, int64_t length, const Pixel& pixel, int32_t* sums) {
  if constexpr (Set::kAddsMaxima) {
    for (int64_t i = 0; i < count; i += 4) {
      const uint8_t* four[4];
      int32_t four_sums[4];
      for (int64_t k = 0; k < 4; ++k) four[k] = pixel(std::min(i + k, count - 1));
      Set::add_up(four, length, four_sums);
      std::copy_n(four_sums, std::min<int64_t>(4, count - i), sums + i);
    }
  }
}

// Filters of several taps meet a pixel several times, so that its sum is taken before; others add it up themselves.
int64_t num_pixel_sums(const Layer& d) { return kNeedsSums && Runs(d).taps > 1 ? d.N * d.H * d.W : 0; }

void add_up_pixels(const Layer& d, const uint8_t* x, int64_t begin, int64_t end, int32_t* sums) {
  add_up_bytes<Bytes>(end - begin, d.C, [&](int64_t i) { return x + (begin + i) * d.C; }, sums + begin);
}

// The positions [first, first + count) of one unit.
class UnitPixels {
 public:
  explicit UnitPixels(const ByteCall& call)
      : call_(call),
        d_(call.layer),
        runs_(call.layer),
        pixels_(runs_.taps * kUnitPositions),
        outside_(d_.C, call.outside),
        rows_(runs_.are_gathered ? kUnitPositions * runs_.length : 0) {}

  void list(int64_t first, int64_t count) {
    if (runs_.taps > 1) std::fill(sums_, sums_ + count, 0);
    for (int64_t done = 0; done < count;) {  // row by row of the output
      const int64_t m = first + done, length = std::min(count - done, d_.Q - m % d_.Q);
      if (runs_.are_gathered)
        for (int64_t i = 0; i < length; ++i) gather(m + i, done + i);
      else
        list_row(m, length, done);
      done += length;
    }
    if (runs_.taps == 1)
      add_up_bytes<Bytes>(count, runs_.length, [this](int64_t i) { return pixels_[i]; }, sums_);
  }
  // Tap t of position i is [t * kUnitPositions + i].
  const uint8_t* const* pixels() const { return pixels_.data(); }
  const int32_t* sums() const { return sums_; }

 private:
  void list_row(int64_t m, int64_t length, int64_t at) {
    const int64_t q = m % d_.Q, p = m / d_.Q % d_.P, n = m / d_.Q / d_.P;
    const uint8_t** to = pixels_.data() + at;
    for (int64_t r = 0; r < d_.R; ++r) {
      const int64_t h = p * d_.stride_h + r * d_.dilation_h - d_.padding_h;
      for (int64_t s = 0; s < d_.S; ++s, to += kUnitPositions) {
        const int64_t v = q * d_.stride_w + s * d_.dilation_w - d_.padding_w;
        const bool is_inside = h >= 0 && h < d_.H;
        // Positions begin .. end - 1 see a pixel of the image.
        const int64_t begin = std::clamp<int64_t>(is_inside ? parts(std::max<int64_t>(0, -v), d_.stride_w) : length, 0, length);
        const int64_t end = std::clamp<int64_t>(parts(std::max<int64_t>(0, d_.W - v), d_.stride_w), begin, length);
        fill_outside(to, at, 0, begin);
        const int64_t pixel = (n * d_.H + h) * d_.W + v;
        for (int64_t i = begin; i < end; ++i) to[i] = call_.x + (pixel + i * d_.stride_w) * d_.C;
        if (kNeedsSums && runs_.taps > 1)
          for (int64_t i = begin; i < end; ++i) sums_[at + i] += call_.pixel_sums[pixel + i * d_.stride_w];
        fill_outside(to, at, end, length);
      }
    }
  }
  void fill_outside(const uint8_t** to, int64_t at, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      to[i] = outside_.data();
      if (kNeedsSums) sums_[at + i] += static_cast<int32_t>(d_.C) * call_.outside;
    }
  }

  void gather(int64_t m, int64_t at) {
    const int64_t q = m % d_.Q, p = m / d_.Q % d_.P, n = m / d_.Q / d_.P;
    uint8_t* row = rows_.data() + at * runs_.length;
    pixels_[at] = row;
    for (int64_t r = 0; r < d_.R; ++r) {
      const int64_t h = p * d_.stride_h + r * d_.dilation_h - d_.padding_h;
      for (int64_t s = 0; s < d_.S; ++s, row += d_.C) {
        const int64_t v = q * d_.stride_w + s * d_.dilation_w - d_.padding_w;
        const bool is_inside = h >= 0 && h < d_.H && v >= 0 && v < d_.W;
        std::memcpy(row, is_inside ? call_.x + ((n * d_.H + h) * d_.W + v) * d_.C : outside_.data(), d_.C);
      }
    }
  }

  const ByteCall& call_;
  const Layer& d_;
  Runs runs_;
  std::vector<const uint8_t*> pixels_;
  std::vector<uint8_t> outside_, rows_;
  int32_t sums_[kUnitPositions] = {};
};

}  // namespace
}  // namespace addertrain::cpu
