// The non-zero inputs of each channel, for one instruction set (a `Simd` is in scope).
//
// Behind a ReLU half of the inputs are 0, and the ReLU drops their gradient: the input gradient walks lists of what is
// left, one list a channel, segment by segment.
#pragma once

#include "csrc/cpu/grad_input/positions.h"
#include "csrc/cpu/movement/pack.h"

namespace addertrain::cpu {
namespace {

// Offsets of a register of dY from a position's base, and of the weights in the channel's.
struct ListStep {
  int64_t dy, weights;
};

struct ListScratch {
  Memory<float> values, sums;
  Memory<int32_t> bases, outputs, pixels;
  Memory<uint32_t> lanes;
  OffsetTable ends;
  Memory<ListStep> steps;
};

// The positions of a phase as tiles that walk lists want them: small enough to stay in the nearest cache.
struct ListedPositions {
  const int32_t* outputs;  // offsets of their bases in the unit's dY; a register more may be read
  const int32_t* pixels;   // their offsets in x and dX

  ListedPositions(const GradUnit& unit, const PhasePositions& phase, ListScratch& scratch) {
    int32_t* output = scratch.outputs.entries(phase.count + Simd::kLanes);
    int32_t* pixel = scratch.pixels.entries(phase.count);
    for (int64_t i = 0; i < phase.count; ++i) {
      output[i] = static_cast<int32_t>(phase.positions[i].dy - unit.dy.data);
      pixel[i] = static_cast<int32_t>(phase.positions[i].pixel);
    }
    outputs = output, pixels = pixel;
  }
};

// A channel's non-zeros in one segment: their values, the offsets of their bases in dY, and where their gradients go.
struct ChannelList {
  const float* values;
  const int32_t* bases;
  float* sums;
  int64_t count;
};

// The lists of a register's channels.
class ChannelLists {
 public:
  // Of `channels` <= kLanes channels; `x` points at the first one of the unit's first pixel.
  ChannelLists(const PhasePositions& phase, const ListedPositions& at, const float* x, int channels,
               ListScratch& scratch)
      : phase_(phase),
        at_(at),
        x_(x),
        channels_(channels),
        pitch_(phase.count + Simd::kLanes),  // a register is stored whole
        values_(scratch.values.entries(pitch_ * Simd::kLanes)),
        sums_(scratch.sums.entries(pitch_ * Simd::kLanes)),
        bases_(scratch.bases.entries(pitch_ * Simd::kLanes)),
        lanes_(scratch.lanes.entries(phase.count + phase.num_segments * Simd::kLanes)),
        ends_(scratch.ends.entries(phase.num_segments * Simd::kLanes)) {
    int64_t counts[Simd::kLanes] = {};
    uint32_t* lanes = lanes_;
    for (int64_t i = 0; i < phase.num_segments; ++i) {
      append(phase.segments[i], counts, lanes);
      std::copy(counts, counts + Simd::kLanes, ends_ + i * Simd::kLanes);
    }
  }

  ChannelList list(int channel, int64_t segment) const {
    const int64_t begin = segment == 0 ? 0 : ends_[(segment - 1) * Simd::kLanes + channel];
    const int64_t at = channel * pitch_ + begin;
    return {values_ + at, bases_ + at, sums_ + at, ends_[segment * Simd::kLanes + channel] - begin};
  }

  // Writes every list's sums to its places in dX, and 0 to all others; `dx` as x in the constructor.
  void write(float* dx) const {
    int64_t counts[Simd::kLanes] = {};
    const uint32_t* lanes = lanes_;
    for (int64_t i = 0; i < phase_.num_segments; ++i)
      for (int64_t at = phase_.segments[i].begin; at < phase_.segments[i].end; at += Simd::kLanes) {
        const int positions = lanes_left(phase_.segments[i].end, at);
        Simd::Reg sums[Simd::kLanes];
#pragma GCC unroll 16
        for (int c = 0; c < Simd::kLanes; ++c, ++lanes) {
          sums[c] = Simd::expand_entries(*lanes, sums_ + c * pitch_ + counts[c]);
          counts[c] += __builtin_popcount(*lanes);
        }
        Simd::transpose(sums);
#pragma GCC unroll 16
        for (int m = 0; m < Simd::kLanes; ++m) {
          if (m >= positions) break;
          if (channels_ == Simd::kLanes)
            Simd::store(dx + at_.pixels[at + m], sums[m]);
          else
            Simd::store_first(dx + at_.pixels[at + m], sums[m], channels_);
        }
      }
  }

 private:
  // x at sixteen positions, channel by channel.
  void load(int64_t at, int positions, Simd::Reg (&block)[Simd::kLanes]) const {
#pragma GCC unroll 16
    for (int m = 0; m < Simd::kLanes; ++m)
      block[m] = m >= positions               ? Simd::zero()
                 : channels_ == Simd::kLanes ? Simd::load(x_ + at_.pixels[at + m])
                                              : Simd::load_first(x_ + at_.pixels[at + m], channels_);
    Simd::transpose(block);
  }

  void append(const Segment& segment, int64_t (&counts)[Simd::kLanes], uint32_t*& lanes) {
    for (int64_t i = segment.begin; i < segment.end; i += Simd::kLanes) {
      Simd::Reg block[Simd::kLanes];
      load(i, lanes_left(segment.end, i), block);
      float* values = values_;
      int32_t* bases = bases_;
#pragma GCC unroll 16
      for (int c = 0; c < Simd::kLanes; ++c, ++lanes, values += pitch_, bases += pitch_) {
        *lanes = Simd::compress_entries(block[c], at_.outputs + i, values + counts[c], bases + counts[c]);
        counts[c] += __builtin_popcount(*lanes);
      }
    }
  }

  const PhasePositions& phase_;
  const ListedPositions& at_;
  const float* x_;
  int channels_;
  int64_t pitch_;
  float* values_;
  float* sums_;
  int32_t* bases_;
  uint32_t* lanes_;  // of every register of positions and channel: which are not zero
  int64_t* ends_;
};

}  // namespace
}  // namespace addertrain::cpu
