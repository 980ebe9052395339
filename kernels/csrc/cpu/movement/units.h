// Divides a batch into units, and brings a unit's images into the form that tiles read: zero-padded floats as
// [image][row][column][channel], in a buffer of the thread, or in place where they already lie so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kUnitPositions = 1024;      // enough that a packed block of filters is reused from the cache
constexpr int64_t kFewTiles = 64, kManyUnits = 32;
constexpr int64_t kUnitFloats = 64 * 1024;    // 256 KiB: a unit's input stays in the second-level cache

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

// How a batch is divided: a unit is `images` complete images, or, where `images` is 1, a band of `rows` rows of one.
struct Cut {
  int64_t N, rows_total;
  int64_t images, rows;

  // `positions_per_row`, `floats_per_row`: what a row of outputs costs in positions and in buffered input. Bands begin at
  // multiples of `rows_multiple`.
  Cut(int64_t N_, int64_t rows_total_, int64_t positions_per_row, int64_t floats_per_row, int64_t rows_multiple,
      int64_t unit_floats = kUnitFloats)
      : N(N_), rows_total(rows_total_), images(1), rows(rows_total_) {
    const int64_t by_positions = kUnitPositions / std::max<int64_t>(1, positions_per_row);
    const int64_t by_floats = unit_floats / std::max<int64_t>(1, floats_per_row);
    const int64_t most_rows = std::max<int64_t>(1, std::min(by_positions, by_floats));
    if (most_rows >= rows_total) {
      // Enough units for many threads, as long as each still fills a few tiles.
      const int64_t for_tiles = ceil_div(kFewTiles, std::max<int64_t>(1, rows_total * positions_per_row));
      const int64_t for_threads = std::max(for_tiles, ceil_div(N, kManyUnits));
      images = std::clamp<int64_t>(std::min(most_rows / rows_total, for_threads), 1, std::max<int64_t>(1, N));
    } else {
      const int64_t bands = ceil_div(rows_total, most_rows);
      rows = ceil_div(ceil_div(rows_total, bands), rows_multiple) * rows_multiple;
    }
  }
  int64_t bands() const { return ceil_div(rows_total, rows); }
  int64_t count() const { return N == 0 ? 0 : ceil_div(N, images) * bands(); }
};

struct Unit {
  int64_t n0, n1, row0, row1;

  Unit(const Cut& cut, int64_t index) {
    n0 = index / cut.bands() * cut.images;
    n1 = std::min(cut.N, n0 + cut.images);
    row0 = index % cut.bands() * cut.rows;
    row1 = std::min(cut.rows_total, row0 + cut.rows);
  }
  int64_t images() const { return n1 - n0; }
  int64_t rows() const { return row1 - row0; }
};

// Memory of one thread, which grows, never shrinks, and is aligned for the widest register. It is not a std::vector: the
// linker keeps one copy of a container's functions for all files, which may be the copy of this instruction set.
template <typename T>
class Memory {
 public:
  ~Memory() { std::free(data_); }
  T* entries(int64_t count) {
    if (count > size_) {
      std::free(data_);
      size_ = 0;  // until the memory is there: a thread that continues after bad_alloc asks again
      const int64_t size = ceil_div(count, 1024) * 1024;
      data_ = static_cast<T*>(std::aligned_alloc(64, sizeof(T) * size));
      if (!data_) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};
using Scratch = Memory<float>;
using PointerTable = Memory<const float*>;
using OffsetTable = Memory<int64_t>;

// Rows and columns of an image that a unit reads; they may lie outside it, where x = 0.
struct Window {
  int64_t row0, rows, column0, columns;
};

// Pixels as [image][row][column][channel]; images and rows lie `image_pitch` and `row_pitch` floats apart.
struct Buffer {
  const float* data;
  int64_t image_pitch, row_pitch;
};

struct ImageShape {
  int64_t C, H, W;
};

// Prefetches a stretch of memory, a little at each call, while something else is computed: what a unit's tiles or the
// next unit will read or write. Without it a unit of 64 KiB waits for memory as long as it computes.
class Ahead {
 public:
  // Prefetches the floats [begin, end) of `data`, which has `total`, in `calls` calls of `fetch`.
  Ahead(const float* data, int64_t begin, int64_t end, int64_t total, int64_t calls)
      : at_(address(data + std::min(begin, total))),
        end_(address(data + std::min(end, total))),
        step_(ceil_div(end_ - at_, std::max<int64_t>(1, calls) * kLine) * kLine) {}

  template <bool is_written = false>
  void fetch() {
    for (const char* until = std::min(end_, at_ + step_); at_ < until; at_ += kLine)
      __builtin_prefetch(at_, is_written, kSecondLevel);
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int kSecondLevel = 2;
  static const char* address(const float* data) { return reinterpret_cast<const char*>(data); }

  const char* at_;
  const char* end_;
  int64_t step_;
};

// Copies a row of planes to [column][channel], sixteen channels at a time so that their lines stay near.
inline void interleave_row(const float* planes, int64_t plane, int64_t C, int64_t columns, float* to) {
  for (int64_t c0 = 0; c0 < C; c0 += 16) {
    const int64_t count = std::min<int64_t>(16, C - c0);
    for (int64_t v = 0; v < columns; ++v)
      for (int64_t c = 0; c < count; ++c) to[v * C + c0 + c] = planes[(c0 + c) * plane + v];
  }
}

// Fills `to` with the window of images [n0, n1); pixels outside the image are a spatial zero pad.
inline Buffer fill_window(const DenseImage& image, const ImageShape& d, int64_t n0, int64_t n1, const Window& window,
                          float* to) {
  const int64_t row_pitch = window.columns * d.C, image_pitch = window.rows * row_pitch;
  const int64_t left = std::clamp<int64_t>(-window.column0, 0, window.columns);
  const int64_t first = window.column0 + left;
  const int64_t inside = std::clamp<int64_t>(std::min(d.W - first, window.columns - left), 0, window.columns);
  for (int64_t n = n0; n < n1; ++n)
    for (int64_t i = 0; i < window.rows; ++i) {
      float* row = to + (n - n0) * image_pitch + i * row_pitch;
      const int64_t h = window.row0 + i;
      if (h < 0 || h >= d.H || inside == 0) {
        std::memset(row, 0, sizeof(float) * row_pitch);
        continue;
      }
      std::memset(row, 0, sizeof(float) * left * d.C);
      if (image.layout == Layout::kNhwc)
        std::memcpy(row + left * d.C, image.data + ((n * d.H + h) * d.W + first) * d.C, sizeof(float) * inside * d.C);
      else
        interleave_row(image.data + (n * d.C * d.H + h) * d.W + first, d.H * d.W, d.C, inside, row + left * d.C);
      std::memset(row + (left + inside) * d.C, 0, sizeof(float) * (window.columns - left - inside) * d.C);
    }
  return {to, image_pitch, row_pitch};
}

// The window in place where nothing has to be padded or reordered, otherwise a copy of it in `scratch`.
inline Buffer read_window(const DenseImage& image, const ImageShape& d, int64_t n0, int64_t n1, const Window& window,
                          Scratch& scratch) {
  const bool is_inside = window.row0 >= 0 && window.column0 >= 0 && window.row0 + window.rows <= d.H &&
                         window.column0 + window.columns <= d.W;
  const bool is_interleaved = image.layout == Layout::kNhwc || d.C == 1 || d.H * d.W == 1;
  if (is_inside && is_interleaved) {
    const float* data = image.data + ((n0 * d.H + window.row0) * d.W + window.column0) * d.C;
    return {data, d.H * d.W * d.C, d.W * d.C};
  }
  float* to = scratch.entries((n1 - n0) * window.rows * window.columns * d.C);
  return fill_window(image, d, n0, n1, window, to);
}

// Writes rows [row0, row1), which lie as [image][row][column][channel], to the planes of an NCHW tensor.
inline void write_planes(const float* from, const ImageShape& d, int64_t n0, int64_t n1, int64_t row0, int64_t row1,
                         float* to) {
  const int64_t count = (row1 - row0) * d.W;
  for (int64_t n = n0; n < n1; ++n, from += count * d.C)
    for (int64_t i0 = 0; i0 < count; i0 += 16) {
      const int64_t i1 = std::min(count, i0 + 16);
      for (int64_t c = 0; c < d.C; ++c)
        for (int64_t i = i0; i < i1; ++i)
          to[((n * d.C + c) * d.H + row0) * d.W + i] = from[i * d.C + c];
    }
}

}  // namespace
}  // namespace addertrain::cpu
