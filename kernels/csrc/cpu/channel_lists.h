// The non-zero inputs of each channel, for one instruction set (a `Simd` is in scope).
//
// Behind a ReLU half of the inputs are 0, and the ReLU drops their gradient: the input gradient walks lists of what is
// left, one list a channel, segment by segment.
#pragma once

#include "csrc/cpu/grad_positions.h"

namespace addertrain::cpu {
namespace {

struct ListScratch {
  Memory<float> values;
  Memory<int32_t> places, outputs, pixels;
  OffsetTable ends;
};

// The positions of a residue as tiles that walk lists want them: small enough to stay in the nearest cache.
struct ListedPositions {
  const int32_t* outputs;  // offsets of their bases in the unit's dY
  const int32_t* pixels;   // their offsets in x and dX

  ListedPositions(const GradUnit& unit, const Residue& residue, ListScratch& scratch) {
    int32_t* output = scratch.outputs.entries(residue.count);
    int32_t* pixel = scratch.pixels.entries(residue.count);
    for (int64_t i = 0; i < residue.count; ++i) {
      output[i] = static_cast<int32_t>(residue.positions[i].dy - unit.dy.data);
      pixel[i] = static_cast<int32_t>(residue.positions[i].pixel);
    }
    outputs = output, pixels = pixel;
  }
};

// A channel's non-zeros in one segment: their values, and which positions of the residue they are.
struct ChannelList {
  const float* values;
  const int32_t* places;
  int64_t count;
};

// The lists of a register's channels.
class ChannelLists {
 public:
  // Of `channels` <= kLanes channels; `x` points at the first one of the unit's first pixel.
  ChannelLists(const Residue& residue, const int32_t* pixels, const float* x, int channels, ListScratch& scratch)
      : pitch_(residue.count + Simd::kLanes),  // a register is stored whole
        values_(scratch.values.entries(pitch_ * Simd::kLanes)),
        places_(scratch.places.entries(pitch_ * Simd::kLanes)),
        ends_(scratch.ends.entries(residue.num_segments * Simd::kLanes)) {
    int64_t counts[Simd::kLanes] = {};
    for (int64_t i = 0; i < residue.num_segments; ++i) {
      append(residue.segments[i], pixels, x, channels, counts);
      std::copy(counts, counts + Simd::kLanes, ends_ + i * Simd::kLanes);
    }
  }

  ChannelList list(int channel, int64_t segment) const {
    const int64_t begin = segment == 0 ? 0 : ends_[(segment - 1) * Simd::kLanes + channel];
    const int64_t at = channel * pitch_ + begin;
    return {values_ + at, places_ + at, ends_[segment * Simd::kLanes + channel] - begin};
  }

 private:
  void append(const Segment& segment, const int32_t* pixels, const float* x, int channels,
              int64_t (&counts)[Simd::kLanes]) {
    for (int64_t i = segment.begin; i < segment.end; i += Simd::kLanes) {
      Simd::Reg block[Simd::kLanes];  // of one position each, then of one channel
      const int64_t left = segment.end - i;
      for (int64_t m = 0; m < Simd::kLanes; ++m) {
        if (m >= left)
          block[m] = Simd::zero();
        else if (channels == Simd::kLanes)
          block[m] = Simd::load(x + pixels[i + m]);
        else
          block[m] = Simd::load_first(x + pixels[i + m], channels);
      }
      Simd::transpose(block);
      float* values = values_;
      int32_t* places = places_;
      for (int c = 0; c < channels; ++c, values += pitch_, places += pitch_)
        counts[c] += Simd::compress_non_zeros(block[c], static_cast<int32_t>(i), values + counts[c], places + counts[c]);
    }
  }

  int64_t pitch_;
  float* values_;
  int32_t* places_;
  int64_t* ends_;
};

}  // namespace
}  // namespace addertrain::cpu
