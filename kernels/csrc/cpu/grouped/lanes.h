// Layers in many small groups, depthwise ones first of all, for one instruction set (a `Simd` is in scope).
//
// A group has so few channels and filters that neither fills a register. The filters of all groups lie along the registers
// instead (in the input gradient: the channels), and each lane adds up its own taps:
//
//   Y[o] = sum_{c,r,s} f(X[g C + c], F[o,c,r,s])     C, O: of one group,  g = o / O
//
// Lane o needs channel g C + c of the image: in a depthwise layer that is lane o of the pixel itself. In others a pixel
// is spread into C planes of all lanes, plane c holding for each lane channel c of its group. Nothing else differs.
#pragma once

#include <algorithm>
#include <type_traits>

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/pack.h"

namespace addertrain::cpu {
namespace {

// How the pixels of an image with `of_group` channels in a group are spread for lanes, `lanes_of_group` in a group.
struct Planes {
  int64_t groups, of_group, lanes_of_group;

  int64_t lanes() const { return groups * lanes_of_group; }
  int64_t channels() const { return groups * of_group; }
  int64_t pixel() const { return of_group * lanes(); }  // floats of a spread pixel
  bool is_as_it_lies() const { return of_group == 1 && lanes_of_group == 1; }
  int64_t registers() const { return ceil_div(lanes(), Simd::kLanes); }
};

struct GroupedScratch {
  Scratch image, spread, x, result;
  OffsetTable taps;
};
thread_local GroupedScratch grouped_scratch;

// `images` windows of `from`, [row][column][channel], with every pixel spread into its planes.
inline Buffer spread_pixels(const Buffer& from, const Planes& planes, int64_t images, int64_t rows, int64_t columns,
                            Scratch& scratch) {
  if (planes.is_as_it_lies()) return from;
  const int64_t row_pitch = columns * planes.pixel();
  float* to = scratch.entries(images * rows * row_pitch);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t i = 0; i < rows; ++i) {
      const float* pixel = from.data + n * from.image_pitch + i * from.row_pitch;
      float* spread = to + (n * rows + i) * row_pitch;
      for (int64_t v = 0; v < columns; ++v, pixel += planes.channels())
        for (int64_t c = 0; c < planes.of_group; ++c)
          for (int64_t g = 0; g < planes.groups; ++g)
            for (int64_t lane = 0; lane < planes.lanes_of_group; ++lane) *spread++ = pixel[g * planes.of_group + c];
    }
  return {to, rows * row_pitch, row_pitch};
}

// The window's pixels, spread into planes.
inline Buffer read_spread(const DenseImage& image, const Planes& planes, int64_t H, int64_t W, const Unit& cut,
                          const Window& window, GroupedScratch& scratch) {
  const Buffer pixels = read_window(image, {planes.channels(), H, W}, cut.n0, cut.n1, window, scratch.image);
  return spread_pixels(pixels, planes, cut.images(), window.rows, window.columns, scratch.spread);
}

inline Simd::Reg load_lanes_of(const float* from, int lanes) {
  return lanes == Simd::kLanes ? Simd::load(from) : Simd::load_first(from, lanes);
}

inline void store_lanes_of(float* to, Simd::Reg value, int lanes) {
  if (lanes == Simd::kLanes)
    Simd::store(to, value);
  else
    Simd::store_first(to, value, lanes);
}

// Element (c, r, s) of filter o, counted over all groups; c within the group.
inline float filter_element(const float* w, const Layer& d, FilterOrder order, int64_t o, const FilterTap& tap) {
  return w[o * d.C * d.R * d.S + offset_of(tap, d, order)];
}

// The offsets of a position's taps from its first one, in the order (r, s, plane).
inline const int64_t* list_taps(const Layer& d, const Planes& planes, int64_t row_pitch, OffsetTable& table) {
  int64_t* taps = table.entries(d.R * d.S * planes.of_group);
  int64_t k = 0;
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s)
      for (int64_t c = 0; c < planes.of_group; ++c)
        taps[k++] = r * d.dilation_h * row_pitch + s * d.dilation_w * planes.pixel() + c * planes.lanes();
  return taps;
}

// The input under the filters of a unit's rows of outputs, spatial padding included.
inline Window grouped_window(const Layer& d, const Unit& cut) {
  return {cut.row0 * d.stride_h - d.padding_h, (cut.rows() - 1) * d.stride_h + (d.R - 1) * d.dilation_h + 1,
          -d.padding_w, (d.Q - 1) * d.stride_w + (d.S - 1) * d.dilation_w + 1};
}

inline Cut cut_outputs(const Layer& d, const Planes& planes, int64_t rows_multiple = 1) {
  return Cut(d.N, d.P, d.Q, d.stride_h * (d.W + 2 * d.padding_w) * planes.pixel(), rows_multiple);
}

// Calls tile<M>(first) over `count` positions of a row, as many at a time as there are; the last tile overlaps the one
// before it and gives the same again.
template <typename Tile>
inline void for_positions(int64_t count, const Tile& tile) {
  const auto each = [&](auto width) {
    constexpr int M = decltype(width)::value;
    for (int64_t q = 0; q < count; q += M) tile(width, std::min(q, count - M));
  };
  if (count >= 8) return each(std::integral_constant<int, 8>{});
  if (count >= 4) return each(std::integral_constant<int, 4>{});
  each(std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace addertrain::cpu
