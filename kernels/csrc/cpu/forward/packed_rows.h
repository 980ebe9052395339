// How rows of images are packed so that positions lie along the registers, for one instruction set (a `Simd` is in
// scope).
//
// Sixteen neighbouring positions of a row, or eight of each of two images, share a register. A filter may then walk a
// list of its own taps, each with one broadcast weight for all positions of a tile (forward/positive.h). The input is
// packed once for every column of the filter, so that every load is aligned: one that crosses a line costs two.
#pragma once

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/pack.h"
#include "csrc/cpu/movement/units.h"

namespace addertrain::cpu {
namespace {

// How a layer's input is packed and divided into tiles, which the layer's sizes alone decide.
struct RowShape {
  int64_t images;          // side by side in a register: two where rows are short
  int64_t registers;       // of a row of outputs
  int64_t tile_rows;       // rows of outputs that a tile takes
  int64_t band_rows;       // rows of outputs that are packed at a time
  int64_t row_floats, column_floats, channel_floats;
  int64_t column_in_place; // the column of the filter that needs no shift
  int64_t block_channels;  // whose part of a tile's input stays in the nearest cache

  explicit RowShape(const Layer& d) {
    constexpr int64_t kHalf = Simd::kLanes / 2, kNearFloats = 6 * 1024, kBandFloats = 96 * 1024;
    images = d.Q <= kHalf ? 2 : 1;
    registers = ceil_div(d.Q, Simd::kLanes);
    tile_rows = ceil_div(d.P, ceil_div(d.P, std::max<int64_t>(1, kTile / registers)));
    const int64_t halo = (d.R - 1) * d.dilation_h;
    row_floats = registers * Simd::kLanes;
    const int64_t most_rows = kBandFloats / (d.C * d.S * row_floats) - halo;
    band_rows = std::clamp<int64_t>(most_rows / tile_rows, 1, ceil_div(d.P, tile_rows)) * tile_rows;
    column_floats = (band_rows + halo) * row_floats;
    column_in_place = d.padding_w / d.dilation_w;
    channel_floats = d.S * column_floats;
    block_channels = std::clamp<int64_t>(kNearFloats / (d.S * (tile_rows + halo) * row_floats), 1, d.C);
    block_channels = ceil_div(d.C, ceil_div(d.C, block_channels));
  }
  int64_t tile() const { return tile_rows * registers; }
  int64_t num_blocks(const Layer& d) const { return ceil_div(d.C, block_channels); }

  static constexpr int64_t kTile = 8;
};

// Whether rows fill their registers and lie in them as the input does.
inline bool fits_rows(const Layer& d) {
  if (!Simd::kHasCompress || d.stride_h != 1 || d.stride_w != 1 || d.N == 0) return false;
  if (d.padding_w % d.dilation_w != 0) return false;
  const RowShape shape(d);
  const int64_t lanes = shape.registers * Simd::kLanes / shape.images;
  return shape.column_in_place < d.S && d.padding_w <= Simd::kLanes && d.W <= lanes && 4 * d.Q >= 3 * lanes &&
         shape.registers <= RowShape::kTile;
}

// ---------------------------------------------------------------- packing the input

struct RowScratch {
  Scratch packed, pixel_sums, sums, partial;
};

// Loads sixteen neighbouring pixels, or eight of each of two images, and transposes them: v[c] holds channel c0 + c.
inline void load_pixels(const DenseImage& image, const Layer& d, const RowShape& shape, int64_t n, int64_t num_images,
                        int64_t h, int64_t column, int64_t c0, Simd::Reg (&v)[Simd::kLanes]) {
  constexpr int kHalf = Simd::kLanes / 2;
  const int64_t image_floats = d.C * d.H * d.W;
  const int channels = lanes_left(d.C, c0);
  const int pixels = shape.images == 2 ? static_cast<int>(d.W) : lanes_left(d.W, column);
  if (image.layout == Layout::kNchw) {
    const float* plane = image.data + n * image_floats + (c0 * d.H + h) * d.W + column;
    for (int c = 0; c < channels; ++c, plane += d.H * d.W) {
      v[c] = Simd::load_first(plane, pixels);
      if (num_images == 2) v[c] = Simd::join_halves(v[c], Simd::load_first(plane + image_floats, pixels));
    }
    return;
  }
  const float* low = image.data + n * image_floats + (h * d.W + column) * d.C + c0;
  const float* high = low + (shape.images == 2 ? image_floats : kHalf * d.C);
  if (channels == Simd::kLanes && num_images == shape.images && pixels * shape.images == Simd::kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) {
      v[i] = Simd::load(low + i * d.C);
      v[kHalf + i] = Simd::load(high + i * d.C);
    }
  } else {
    const int in_low = std::min(pixels, kHalf);
    const int in_high = shape.images == 1 ? pixels - in_low : num_images == 2 ? pixels : 0;
    for (int i = 0; i < kHalf; ++i) {
      v[i] = i < in_low ? Simd::load_first(low + i * d.C, channels) : Simd::zero();
      v[kHalf + i] = i < in_high ? Simd::load_first(high + i * d.C, channels) : Simd::zero();
    }
  }
  Simd::transpose(v);
}

// Writes a row for the column of the filter that needs no shift, and the row's sums over channels; lowers `lowest` to the
// row's minimum. The minimum drops a NaN, and the sums keep it.
inline void pack_row(const DenseImage& image, const Layer& d, const RowShape& shape, int64_t n, int64_t num_images,
                     int64_t h, float* to, float* sums, Simd::Reg& lowest) {
  for (int64_t v0 = 0; v0 < shape.row_floats; v0 += Simd::kLanes) {
    Simd::Reg sum = Simd::zero();
    for (int64_t c0 = 0; c0 < d.C; c0 += Simd::kLanes) {
      float* at = to + c0 * shape.channel_floats + v0;
      const int channels = lanes_left(d.C, c0);
      Simd::Reg v[Simd::kLanes];
      load_pixels(image, d, shape, n, num_images, h, v0, c0, v);
#pragma GCC unroll 16
      for (int c = 0; c < Simd::kLanes; ++c, at += shape.channel_floats) {
        if (c >= channels) break;
        lowest = Simd::min(v[c], lowest);
        sum = Simd::add(sum, v[c]);
        Simd::store(at, v[c]);
      }
    }
    Simd::store(sums + v0, sum);
  }
}

// Which lanes of a register of a row, read `shift` floats further on, lie in the same row of the same image.
inline uint32_t lanes_in_row(const RowShape& shape, int64_t first, int64_t shift) {
  const int64_t slot = shape.images == 1 ? shape.row_floats : Simd::kLanes / shape.images;
  uint32_t lanes = 0;
  for (int64_t lane = 0; lane < Simd::kLanes; ++lane) {
    const int64_t column = (first + lane) % slot + shift;
    lanes |= static_cast<uint32_t>(column >= 0 && column < slot) << lane;
  }
  return lanes;
}

// Writes a row outside the image, which is a spatial zero pad.
inline void pack_zeros(const Layer& d, const RowShape& shape, float* to, float* sums) {
  for (int64_t c = 0; c < d.C; ++c) std::memset(to + c * shape.channel_floats, 0, sizeof(float) * shape.row_floats);
  std::memset(sums, 0, sizeof(float) * shape.row_floats);
}

// What tiles read: [channel][column of the filter][row][position], and sums over channels and columns by row.
struct PackedBand {
  float* inputs;
  float* pixel_sums;
  float* sums;

  PackedBand(const Layer& d, const RowShape& shape, RowScratch& scratch)  // a shifted load may begin before a row
      : inputs(scratch.packed.entries(d.C * shape.channel_floats + 2 * Simd::kLanes) + Simd::kLanes),
        pixel_sums(scratch.pixel_sums.entries(shape.column_floats + 2 * Simd::kLanes) + Simd::kLanes),
        sums(scratch.sums.entries(shape.column_floats)) {}
};

// Copies [begin, end) of every row packed in place to the other columns of the filter, and adds up their sums.
inline void shift_rows(const Layer& d, const RowShape& shape, const PackedBand& to, int64_t begin, int64_t end) {
  const float* in_place = to.inputs + shape.column_in_place * shape.column_floats;
  for (int64_t v0 = 0; v0 < shape.row_floats; v0 += Simd::kLanes)
    for (int64_t s = 0; s < d.S; ++s) {
      const int64_t shift = s * d.dilation_w - d.padding_w;
      const uint32_t lanes = lanes_in_row(shape, v0, shift);
      for (int64_t at = begin + v0; at < end; at += shape.row_floats) {
        const Simd::Reg sum = Simd::load_lanes(to.pixel_sums + at + shift, lanes);
        Simd::store(to.sums + at, s == 0 ? sum : Simd::add(sum, Simd::load(to.sums + at)));
      }
      if (s == shape.column_in_place) continue;
      for (int64_t c = 0; c < d.C; ++c) {
        const float* from = in_place + c * shape.channel_floats + shift;
        float* column = to.inputs + c * shape.channel_floats + s * shape.column_floats;
        for (int64_t at = begin + v0; at < end; at += shape.row_floats)
          Simd::store(column + at, Simd::load_lanes(from + at, lanes));
      }
    }
}

// Packs the inputs, from row0 on, under `rows` rows of outputs of the images from n on. Stops at x < 0 and returns false.
inline bool pack_band(const DenseImage& image, const Layer& d, const RowShape& shape, int64_t n, int64_t num_images,
                      int64_t row0, int64_t rows, const PackedBand& to) {
  constexpr int64_t kRowsAtOnce = 4;  // still in the nearest cache, but no longer in the queue of stores
  const int64_t num_rows = ceil_div(rows, shape.tile_rows) * shape.tile_rows + (d.R - 1) * d.dilation_h;
  float* in_place = to.inputs + shape.column_in_place * shape.column_floats;
  Simd::Reg lowest = Simd::zero();
  for (int64_t first = 0; first < num_rows; first += kRowsAtOnce) {
    const int64_t last = std::min(num_rows, first + kRowsAtOnce);
    for (int64_t i = first; i < last; ++i) {
      const int64_t h = row0 + i, at = i * shape.row_floats;
      if (h >= 0 && h < d.H)
        pack_row(image, d, shape, n, num_images, h, in_place + at, to.pixel_sums + at, lowest);
      else
        pack_zeros(d, shape, in_place + at, to.pixel_sums + at);
    }
    if (Simd::sum(lowest) != 0.0f) return false;  // no lane is positive, so none cancels another
    shift_rows(d, shape, to, first * shape.row_floats, last * shape.row_floats);
  }
  return true;
}

// Sums of x over all taps for the positions of a tile.
inline void sum_tile(const Layer& d, const RowShape& shape, const float* sums, float* to) {
  for (int64_t i = 0; i < shape.tile() * Simd::kLanes; i += Simd::kLanes) {
    Simd::Reg sum = Simd::zero();
    for (int64_t r = 0; r < d.R; ++r) sum = Simd::add(sum, Simd::load(sums + r * d.dilation_h * shape.row_floats + i));
    Simd::store(to + i, sum);
  }
}

// Stores sixteen positions of `filters` filters, given filter by filter; tail lanes are left out.
inline void store_turned(const Layer& d, const RowShape& shape, Simd::Reg (&v)[Simd::kLanes], int64_t t, int filters,
                         int64_t num_images, int64_t image_pitch, float* y) {
  constexpr int kHalf = Simd::kLanes / 2;
  Simd::transpose(v);
  const int64_t q0 = t % shape.registers * Simd::kLanes;
  float* low = y + (t / shape.registers * d.Q + q0) * d.O;
  float* high = low + (shape.images == 2 ? image_pitch : kHalf * d.O);
  const int positions = shape.images == 2 ? static_cast<int>(d.Q) : lanes_left(d.Q, q0);
  if (filters == Simd::kLanes && num_images == shape.images && positions * shape.images == Simd::kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) {
      Simd::store(low + i * d.O, v[i]);
      Simd::store(high + i * d.O, v[kHalf + i]);
    }
    return;
  }
  const int in_low = std::min(positions, kHalf);
  const int in_high = shape.images == 1 ? positions - in_low : num_images == 2 ? positions : 0;
  for (int i = 0; i < in_low; ++i) Simd::store_first(low + i * d.O, v[i], filters);
  for (int i = 0; i < in_high; ++i) Simd::store_first(high + i * d.O, v[kHalf + i], filters);
}

}  // namespace
}  // namespace addertrain::cpu
