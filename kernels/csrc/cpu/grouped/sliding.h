// Tiles of depthwise layers that read pixels in place, for one instruction set (a `Simd` is in scope).
//
// A tile is a few rows and columns of results and one register of channels. Each pixel under it is loaded once, into a
// register that serves every tap that sees it. Rows and columns outside the image are registers of zeros, so that no
// padded copy is needed: copying a window costs as much time as its taps do.
//
// Large layers come from memory. Their pixels are fetched a step of rows ahead, and complete lines of results are stored
// past the caches, which would read every line from memory before they write it.
#pragma once

#include <type_traits>

#include "csrc/cpu/grouped/lanes.h"

namespace addertrain::cpu {
namespace {

constexpr int kTileRows = 2, kTileColumns = 4;
// Below this size the last cache holds the pixels of this layer, and its results until the next layer reads them.
constexpr int64_t kStreamedBytes = 8 * 1024 * 1024;

inline bool is_streamed(int64_t floats) { return floats >= kStreamedBytes / static_cast<int64_t>(sizeof(float)); }

// Whether registers of `lanes` channels fill complete cache lines from `to` on.
inline bool fills_lines(const float* to, int64_t lanes) {
  constexpr int64_t kLineBytes = 64;
  return lanes % Simd::kLanes == 0 && reinterpret_cast<uintptr_t>(to) % kLineBytes == 0;
}

inline bool can_slide(const Layer& d, const Planes& planes) {
  return Simd::kSlidesDepthwise && planes.is_as_it_lies() && d.dilation_h == 1 && d.dilation_w == 1 && d.R == d.S &&
         (d.S == 3 || d.S == 5 || d.S == 7);
}

// Calls pass(S) with the filter's columns as a constant. Sets without kSlidesDepthwise compile no tiles.
template <typename Pass>
inline void for_filter_columns(int64_t S, const Pass& pass) {
  if constexpr (Simd::kSlidesDepthwise) {
    if (S == 3) return pass(std::integral_constant<int, 3>{});
    if (S == 5) return pass(std::integral_constant<int, 5>{});
    pass(std::integral_constant<int, 7>{});
  }
}

// Calls pass(S, stride) with both as constants; strides are 1 or 2.
template <typename Pass>
inline void for_filters(const Layer& d, const Pass& pass) {
  for_filter_columns(d.S, [&](auto columns) {
    if (d.stride_w == 1)
      pass(columns, std::integral_constant<int, 1>{});
    else
      pass(columns, std::integral_constant<int, 2>{});
  });
}

// Pixels of a unit's images: the images themselves, or a padded window of them where channels have to be interleaved.
struct PixelRows {
  Buffer pixels;
  Window window;
  int64_t channels;
  bool is_in_place;
};

inline PixelRows read_rows(const DenseImage& image, const ImageShape& d, const Unit& cut, const Window& window,
                           Scratch& scratch) {
  if (image.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1) {
    const int64_t row_pitch = d.W * d.C, image_pitch = d.H * row_pitch;
    return {{image.data + cut.n0 * image_pitch, image_pitch, row_pitch}, {0, d.H, 0, d.W}, d.C, true};
  }
  float* to = scratch.entries(cut.images() * window.rows * window.columns * d.C);
  return {fill_window(image, d, cut.n0, cut.n1, window, to), window, d.C, false};
}

// Brings a register of each of `kCount` pixels into the nearest cache. An address past the end does no harm.
template <int kCount>
inline void fetch_pixels(const float* at, int64_t step) {
  constexpr int kNearest = 3;
#pragma GCC unroll 16
  for (int j = 0; j < kCount; ++j) __builtin_prefetch(at + j * step, 0, kNearest);
}

// The pixels under a tile, kRows x kColumns, from (h, v) of image n on; some may lie outside the image.
template <int kRows, int kColumns>
struct TilePixels {
  const float* origin;
  int64_t row_pitch, step;
  int top, bottom, left, right;  // the tile's rows and columns inside the image: [top, bottom) and [left, right)
  int64_t ahead;                 // floats to the pixels of a later tile, or 0

  TilePixels(const PixelRows& x, int64_t n, int64_t h, int64_t v, int64_t rows_ahead)
      : row_pitch(x.pixels.row_pitch), step(x.channels), ahead(rows_ahead * row_pitch) {
    const int64_t row = h - x.window.row0, column = v - x.window.column0;
    origin = x.pixels.data + n * x.pixels.image_pitch + row * row_pitch + column * step;
    top = inside<kRows>(-row), bottom = inside<kRows>(x.window.rows - row);
    left = inside<kColumns>(-column), right = inside<kColumns>(x.window.columns - column);
  }

  bool has(int i, int j) const { return i >= top && i < bottom && j >= left && j < right; }
  bool is_inside() const { return top == 0 && bottom == kRows && left == 0 && right == kColumns; }

  // Row i for the channels from `o` on.
  template <bool kIsInside>
  void load(int i, int64_t o, int lanes, Simd::Reg (&pixels)[kColumns]) const {
    const float* at = origin + i * row_pitch + o;
#pragma GCC unroll 16
    for (int j = 0; j < kColumns; ++j)
      if constexpr (kIsInside)
        pixels[j] = Simd::load(at + j * step);
      else
        pixels[j] = has(i, j) ? load_lanes_of(at + j * step, lanes) : Simd::zero();
  }

  // Brings what a later tile sees of row i for the first time into the nearest cache.
  template <int kCount>
  void fetch(int i, int64_t o) const {
    fetch_pixels<kCount>(origin + i * row_pitch + o + ahead, step);
  }

 private:
  template <int kMost>
  static int inside(int64_t i) {
    return static_cast<int>(std::clamp<int64_t>(i, 0, kMost));
  }
};

// Calls rows(M, first) over a unit's rows, two at a time and a last one alone.
template <typename Rows>
inline void for_row_pairs(int64_t count, const Rows& rows) {
  int64_t p = 0;
  for (; p + kTileRows <= count; p += kTileRows) rows(std::integral_constant<int, kTileRows>{}, p);
  for (; p < count; ++p) rows(std::integral_constant<int, 1>{}, p);
}

// The first columns of the tiles of a row; the last tile overlaps the one before it and gives the same again.
template <typename Tile>
inline void for_tile_columns(int64_t count, const Tile& tile) {
  for (int64_t q = 0; q < count; q += kTileColumns) tile(std::min(q, count - kTileColumns));
}

// Where a tile's results go.
struct TileResults {
  float* first;
  int64_t row_pitch, step;
  bool is_streamed;

  template <int M, int N>
  void store(const Simd::Reg (&values)[M][N], int64_t o, int lanes) const {
    if (is_streamed)
      each(values, o, [](float* to, Simd::Reg value) { Simd::stream(to, value); });
    else if (lanes == Simd::kLanes)
      each(values, o, [](float* to, Simd::Reg value) { Simd::store(to, value); });
    else
      each(values, o, [lanes](float* to, Simd::Reg value) { Simd::store_first(to, value, lanes); });
  }

 private:
  template <int M, int N, typename Store>
  void each(const Simd::Reg (&values)[M][N], int64_t o, const Store& store) const {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) store(first + m * row_pitch + n * step + o, values[m][n]);
  }
};

}  // namespace
}  // namespace addertrain::cpu
