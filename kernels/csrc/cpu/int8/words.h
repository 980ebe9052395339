// Convolutions of 16-bit words in one instruction set, for a network's first and last layer. Every set multiplies pairs
// of words and adds the two products exactly in 32 bits; the caller keeps the sums below 2^31.
#pragma once

#include <cstring>
#include <vector>

#include "csrc/cpu/int8/tiles.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kWordFilters = Words::kRegisters * Words::kLanes;
constexpr int64_t kMostWordPositions = Words::positions(1);
static_assert(kUnitFilters % kWordFilters == 0 && Words::kDepth == 4);

// A patch is a run for each row of the filter: its pixels side by side, filled up to a pair with a word whose weight
// is 0.
int64_t run_words(const Layer& d) { return parts(d.S * d.C, 2) * 2; }
int64_t patch_words(const Layer& d) { return d.R * run_words(d); }

int64_t packed_word_bytes(const Layer& d) { return parts(d.O, Words::kLanes) * Words::kLanes * patch_words(d) * 2; }
int64_t num_word_blocks(const Layer& d) { return parts(d.O, kWordFilters); }

int word_registers_from(const Layer& d, int64_t filter) {
  return static_cast<int>(std::min<int64_t>(Words::kRegisters, parts(d.O - filter, Words::kLanes)));
}

// [block][pair of words of the patch][register][lane][2].
void pack_words(const Layer& d, const int16_t* w, const ImageStrides& strides, int64_t block_begin, int64_t block_end,
                uint8_t* packed) {
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int64_t first = block * kWordFilters, lanes = word_registers_from(d, first) * Words::kLanes;
    auto* panel = reinterpret_cast<int16_t*>(packed) + first * patch_words(d);
    for (int64_t k = 0; k < patch_words(d); ++k) {
      const int64_t r = k / run_words(d), s = k % run_words(d) / d.C, c = k % run_words(d) % d.C;
      const int16_t* from = w + r * strides.h + s * strides.w + c * strides.c;
      for (int64_t lane = 0; lane < lanes; ++lane)
        panel[(k / 2 * lanes + lane) * 2 + k % 2] = s < d.S && first + lane < d.O ? from[(first + lane) * strides.n] : 0;
    }
  }
}

// How many words an image batch with its padding takes: two more, because the last run may read beyond it.
int64_t padded_words(const Layer& d) {
  return d.N * (d.H + 2 * d.padding_h) * (d.W + 2 * d.padding_w) * d.C + 2;
}

// Rows [begin, end) of [N * (H + 2 padding)][W + 2 padding][C]: the integers nearest to x * factor within +-most. A NaN
// becomes -most, by the order of the arguments of std::max.
void pad_to_words(const Layer& d, const float* x, float factor, float most, int64_t begin, int64_t end, int16_t* words) {
  const int64_t rows = d.H + 2 * d.padding_h, row_words = (d.W + 2 * d.padding_w) * d.C, side = d.padding_w * d.C;
  for (int64_t m = begin; m < end; ++m) {
    int16_t* to = words + m * row_words;
    std::fill(to, to + row_words, int16_t{0});
    const int64_t h = m % rows - d.padding_h;
    if (h < 0 || h >= d.H) continue;
    const float* from = x + (m / rows * d.H + h) * d.W * d.C;
    for (int64_t i = 0; i < d.W * d.C; ++i) {
      // 1.5 * 2^23 + v has no digits behind the point, and v in its last bits.
      const float v = std::min(std::max(-most, from[i] * factor), most) + 12582912.0f;
      to[side + i] = static_cast<int16_t>(std::bit_cast<uint32_t>(v));
    }
  }
}

// pixels[r * kUnitPositions + i]: the run of row r under position first + i.
void list_runs(const WordCall& call, int64_t first, int64_t count, const uint8_t** pixels) {
  const Layer& d = call.layer;
  const int64_t rows = d.H + 2 * d.padding_h, columns = d.W + 2 * d.padding_w;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t m = first + i, q = m % d.Q, p = m / d.Q % d.P, n = m / d.Q / d.P;
    for (int64_t r = 0; r < d.R; ++r)
      pixels[r * kUnitPositions + i] = reinterpret_cast<const uint8_t*>(
          call.words + ((n * rows + p * d.stride_h + r) * columns + q * d.stride_w) * d.C);
  }
}

void compute_word_block(const WordCall& call, const uint8_t* const* pixels, int64_t first, int64_t count, int64_t o) {
  const Layer& d = call.layer;
  const int registers = word_registers_from(d, o);
  const int64_t lanes = registers * Words::kLanes, filters = std::min(lanes, d.O - o);
  const int64_t most = Words::positions(registers);
  const bool rounds = Words::kRoundsInRegisters && call.bytes && filters == lanes;
  const ByteNorm norm{call.scale + o, call.shift + o, nullptr, 0.0f, call.low};
  constexpr int32_t kNothing[kUnitPositions] = {};
  alignas(64) int32_t sums[kMostWordPositions * kWordFilters];
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t size = std::min(most, count - begin), at = (first + begin) * d.O + o;
    const TileEnd ending{sums, rounds ? call.bytes + at : nullptr, d.O, kNothing, norm};
    tiles_with<Words>(registers)[size - 1](pixels + begin, d.R, 2 * run_words(d), call.packed + 2 * o * patch_words(d),
                                           nullptr, ending);
    for (int64_t i = 0; i < size && !rounds; ++i) {
      const int32_t* row = sums + i * lanes;
      if (call.bytes) round_in_memory(norm, filters, row, 0, call.bytes + at + i * d.O);
      else
        for (int64_t j = 0; j < filters; ++j)
          call.numbers[at + i * d.O + j] = static_cast<float>(row[j]) * norm.scale[j] + norm.shift[j];
    }
  }
}

void compute_words(const WordCall& call, int64_t unit_begin, int64_t unit_end) {
  std::vector<const uint8_t*> pixels(call.layer.R * kUnitPositions);
  for_blocks(
      call.layer, unit_begin, unit_end, kWordFilters,
      [&](int64_t first, int64_t count) { list_runs(call, first, count, pixels.data()); },
      [&](int64_t first, int64_t count, int64_t o) { compute_word_block(call, pixels.data(), first, count, o); });
}

}  // namespace
}  // namespace addertrain::cpu
