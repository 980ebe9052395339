// The non-zero inputs of each channel, for one instruction set (a `Simd` is in scope).
//
// Behind a ReLU half of the inputs are 0, and the ReLU drops their gradient: the input gradient walks lists of what is
// left, one list a channel, segment by segment. A tile of inputs that are all near 0, 0 < x <= Simd::kMostNear, computes
// HT(w - x) as min(max(w, x - 1), x + 1) - x, which needs the sum of dY over all outputs that saw an input.
#pragma once

#include "csrc/cpu/grad_input/positions.h"
#include "csrc/cpu/movement/pack.h"
#include "csrc/cpu/movement/pixel_sums.h"

namespace addertrain::cpu {
namespace {

// Whether the layer has tiles of near inputs. They save an instruction an element, and there must be enough elements to
// make up for the sums of dY.
inline bool has_near_tiles(const Layer& d) {
  constexpr int64_t kFewTaps = 256;
  return Simd::kMostNear > 0 && d.O * d.R * d.S / (d.stride_h * d.stride_w) > kFewTaps;
}

struct ListStretch;

struct ListScratch {
  Memory<float> values, gradients, sums, output_sums, position_sums;
  Memory<int32_t> bases, outputs, pixels;
  Memory<uint32_t> lanes;
  OffsetTable ends, steps, taps;
  Memory<ListStretch> stretches;
};

// sum_o dY of every output that the unit reads. The sums lie as the outputs do, one number in place of O.
inline const float* sum_outputs(const Layer& d, const GradUnit& unit, const Window& window, Scratch& scratch) {
  const int64_t image_pixels = unit.dy.image_pitch / d.O;
  float* sums = scratch.entries(unit.cut.images() * image_pixels + Simd::kLanes);
  Buffer image = unit.dy;
  for (int64_t n = 0; n < unit.cut.images(); ++n, image.data += image.image_pitch)
    sum_pixels(image, 1, window, d.O, sums + n * image_pixels);
  return sums;
}

// The positions of a phase for tiles that walk lists: as 32-bit offsets, small enough to stay in the nearest cache.
struct ListedPositions {
  const int32_t* outputs;  // offsets of their bases in the unit's dY; a register more may be read
  const int32_t* pixels;   // their offsets in x and dX
  const float* gradients;  // sums of dY over the outputs that saw them, or null; a register more may be read

  // `output_sums` as sum_outputs gives them, or null.
  ListedPositions(const Layer& d, const GradUnit& unit, const PhasePositions& phase, const float* output_sums,
                  ListScratch& scratch) {
    int32_t* output = scratch.outputs.entries(phase.count + Simd::kLanes);
    int32_t* pixel = scratch.pixels.entries(phase.count);
    for (int64_t i = 0; i < phase.count; ++i) {
      output[i] = static_cast<int32_t>(phase.positions[i].dy - unit.dy.data);
      pixel[i] = static_cast<int32_t>(phase.positions[i].pixel);
    }
    outputs = output, pixels = pixel, gradients = nullptr;
    if (output_sums == nullptr) return;
    float* sums = scratch.position_sums.entries(phase.count + Simd::kLanes);
    for (int64_t i = 0; i < phase.num_segments; ++i)
      add_taps(d, phase, phase.segments[i], output_sums, scratch.taps, sums);
    gradients = sums;
  }

 private:
  // Whether a register's bases follow each other in a row. All are compared, because the first and the last may be as far
  // apart by chance where a strip of columns ends.
  static bool are_neighbours(const int32_t* outputs, int64_t O) {
    bool is_row = true;
    for (int i = 1; i < Simd::kLanes; ++i) is_row &= outputs[i] - outputs[i - 1] == O;
    return is_row;
  }

  // Writes the sums of a segment; neighbours in a row of outputs are added a register at a time.
  void add_taps(const Layer& d, const PhasePositions& phase, const Segment& segment, const float* output_sums,
                OffsetTable& taps, float* sums) const {
    int64_t* offsets = taps.entries(d.R * d.S);
    int64_t count = 0;
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s)
        if (segment.taps.has(r, s)) offsets[count++] = (phase.down[r] + phase.across[s]) / d.O;
    constexpr int64_t kLast = Simd::kLanes - 1;
    for (int64_t i = segment.begin; i < segment.end;) {
      const float* at = output_sums + outputs[i] / d.O;
      if (i + kLast < segment.end && are_neighbours(outputs + i, d.O)) {
        Simd::Reg sum = Simd::zero();
        for (int64_t tap = 0; tap < count; ++tap) sum = Simd::add(sum, Simd::load(at + offsets[tap]));
        Simd::store(sums + i, sum);
        i += Simd::kLanes;
      } else {
        float sum = 0.0f;
        for (int64_t tap = 0; tap < count; ++tap) sum += at[offsets[tap]];
        sums[i++] = sum;
      }
    }
  }
};

// A channel's non-zeros in one segment: their values, the sums of dY that saw them or null, the offsets of their bases
// in dY, and where their own gradients go.
struct ChannelList {
  const float* values;
  const float* gradients;
  const int32_t* bases;
  float* sums;
  int64_t count;
};

// The lists of a register's channels.
class ChannelLists {
 public:
  // Lists `channels` <= kLanes channels; `x` points at the first one of the unit's first pixel.
  ChannelLists(const PhasePositions& phase, const ListedPositions& at, const float* x, int channels,
               ListScratch& scratch)
      : phase_(phase),
        at_(at),
        x_(x),
        channels_(channels),
        pitch_(phase.count + Simd::kLanes),  // a store writes a full register
        values_(scratch.values.entries(pitch_ * Simd::kLanes)),
        gradients_(at.gradients ? scratch.gradients.entries(pitch_ * Simd::kLanes) : nullptr),
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
    const int64_t end = ends_[segment * Simd::kLanes + channel];
    return {values_ + at, gradients_ ? gradients_ + at : nullptr, bases_ + at, sums_ + at, end - begin};
  }

  // Writes every list's sums to their places in dX, and 0 to all other places; `dx` points where x does.
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
  // Loads x at a register of positions and transposes it: block[c] holds channel c.
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
#pragma GCC unroll 16
      for (int c = 0; c < Simd::kLanes; ++c, ++lanes) {
        const int64_t to = c * pitch_ + counts[c];
        *lanes = Simd::non_zeros(block[c]);
        Simd::store(values_ + to, Simd::compress(block[c], *lanes));
        Simd::compress_entries(at_.outputs + i, *lanes, bases_ + to);
        if (gradients_ != nullptr)
          Simd::store(gradients_ + to, Simd::compress(Simd::load(at_.gradients + i), *lanes));
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
  float* gradients_;
  float* sums_;
  int32_t* bases_;
  uint32_t* lanes_;  // which are not zero, for every register of positions and every channel
  int64_t* ends_;
};

}  // namespace
}  // namespace addertrain::cpu
