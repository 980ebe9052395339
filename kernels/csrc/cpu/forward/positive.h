// The forward pass behind a ReLU, for one instruction set (a `Simd` is in scope).
//
// Where x >= 0, a filter's negative elements count as 0 (forward/tiles.h) and min(x, 0) = 0: half of all taps contribute
// nothing to any response. With positions along the registers (forward/packed_rows.h) each filter walks a list of its
// positive taps.
#pragma once

#include "csrc/cpu/forward/packed_rows.h"
#include "csrc/cpu/forward/tiles.h"

namespace addertrain::cpu {
namespace {

// Whether it beats filters along the registers. A tap's input is read once for each filter that has the tap, so there must
// not be many taps, and an image must not be larger than what is packed at a time.
inline bool can_be_positive(const Layer& d) {
  constexpr int64_t kFewTaps = 9, kManyTaps = 576;
  const int64_t taps = d.C * d.R * d.S;
  return d.O >= Simd::kLanes && d.R * d.S >= kFewTaps && taps <= kManyTaps && fits_rows(d) &&
         RowShape(d).band_rows >= d.P;
}

// The positive taps of every filter, block of channels by block: their weights, and where their inputs lie.
struct PositiveLists {
  int64_t capacity, lists;
  float* values;
  int32_t* offsets;
  int32_t* counts;

  PositiveLists(const Layer& d, float* packed) {
    const RowShape shape(d);
    capacity = shape.block_channels * d.R * d.S + Simd::kLanes;  // a register is stored whole
    lists = shape.num_blocks(d) * d.O;
    values = packed;
    offsets = reinterpret_cast<int32_t*>(values + lists * capacity);
    counts = offsets + lists * capacity;
  }
  static int64_t floats(const Layer& d) {
    const PositiveLists to(d, nullptr);
    return to.lists * (2 * to.capacity + 1);
  }
};

// The lists of filter o.
inline void pack_positive(const DenseForwardCall& call, const PositiveLists& to, int64_t o) {
  const Layer& d = call.layer;
  const RowShape shape(d);
  const float* filter = call.w + o * d.C * d.R * d.S;
  for (int64_t block = 0; block < shape.num_blocks(d); ++block) {
    const int64_t list = block * d.O + o, c0 = block * shape.block_channels;
    float* values = to.values + list * to.capacity;
    int32_t* offsets = to.offsets + list * to.capacity;
    int32_t count = 0;
    for (int64_t c = c0; c < std::min(d.C, c0 + shape.block_channels); ++c)
      for (int64_t r = 0; r < d.R; ++r)
        for (int64_t s = 0; s < d.S; ++s) {
          const float w = filter[offset_of({c, r, s}, d, call.w_order)];
          values[count] = w;
          offsets[count] = static_cast<int32_t>(c * shape.channel_floats + s * shape.column_floats +
                                                r * d.dilation_h * shape.row_floats);
          count += w > 0;
        }
    to.counts[list] = count;
  }
}

// partial[t] += sum of min(x, w) over a filter's list, for T registers of positions from `x` on.
template <int T>
void positive_tile(const float* x, const float* values, const int32_t* offsets, int64_t count, bool is_first,
                   float* partial) {
  Simd::Reg acc[T];
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) acc[t] = is_first ? Simd::zero() : Simd::load(partial + t * Simd::kLanes);
  for (int64_t i = 0; i < count; ++i) {
    const Simd::Reg w = Simd::broadcast_at(values + i);
    const float* at = x + offsets[i];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) acc[t] = Simd::add_min(acc[t], w, Simd::load(at + t * Simd::kLanes));
  }
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) Simd::store(partial + t * Simd::kLanes, acc[t]);
}

using PositiveTile = void (*)(const float*, const float*, const int32_t*, int64_t, bool, float*);
constexpr PositiveTile kPositiveTiles[] = {nullptr,          positive_tile<1>, positive_tile<2>,
                                           positive_tile<3>, positive_tile<4>, positive_tile<5>,
                                           positive_tile<6>, positive_tile<7>, positive_tile<8>};

// Writes the responses of register t of a tile.
inline void store_positive(const Layer& d, const RowShape& shape, const float* partial, const float* x_sums,
                           const float* constant, int64_t t, int filters, int64_t num_images, int64_t image_pitch,
                           float* y) {
  Simd::Reg v[Simd::kLanes];
  const Simd::Reg minus_x = Simd::scale_add(-1.0f, Simd::load(x_sums + t * Simd::kLanes), Simd::zero());
  const float* acc = partial + t * Simd::kLanes;
#pragma GCC unroll 16
  for (int f = 0; f < Simd::kLanes; ++f, acc += shape.tile() * Simd::kLanes)  // the block's tail is not stored
    v[f] = Simd::scale_add(2.0f, Simd::load(acc), Simd::add(minus_x, Simd::broadcast_at(constant + f)));
  store_turned(d, shape, v, t, filters, num_images, image_pitch, y);
}

// Computes `rows` rows of the `num_images` images that are packed in `band`; `y` is their first position.
inline void compute_band(const Layer& d, const RowShape& shape, const PositiveLists& lists, const float* constant,
                         Ahead x_ahead, Ahead y_ahead, int64_t num_images, int64_t rows, int64_t image_pitch, float* y,
                         const PackedBand& band, RowScratch& scratch) {
  const int64_t T = shape.tile(), tile_floats = T * Simd::kLanes;
  const PositiveTile tile = kPositiveTiles[T];
  float* partial = scratch.partial.entries((Simd::kLanes + 1) * tile_floats);
  float* x_sums = partial + Simd::kLanes * tile_floats;
  for (int64_t p = 0; p < rows; p += shape.tile_rows) {
    sum_tile(d, shape, band.sums + p * shape.row_floats, x_sums);
    const int64_t present = std::min(shape.tile_rows, rows - p) * shape.registers;
    for (int64_t o0 = 0; o0 < d.O; o0 += Simd::kLanes) {
      const int filters = lanes_left(d.O, o0);
      for (int64_t block = 0; block < shape.num_blocks(d); ++block)
        for (int f = 0; f < filters; ++f) {
          const int64_t list = block * d.O + o0 + f;
          tile(band.inputs + p * shape.row_floats, lists.values + list * lists.capacity,
               lists.offsets + list * lists.capacity, lists.counts[list], block == 0, partial + f * tile_floats);
          x_ahead.fetch();
          y_ahead.fetch<true>();
        }
      for (int64_t t = 0; t < present; ++t)
        store_positive(d, shape, partial, x_sums, constant + o0, t, filters, num_images, image_pitch,
                       y + p * d.Q * d.O + o0);
    }
  }
}

// Computes a unit if x >= 0 throughout, and returns whether it is; `y` lies as [image][row][column][filter].
inline bool compute_positive_unit(const DenseForwardCall& call, const PositiveLists& lists, const float* constant,
                                  const Unit& cut, float* y, RowScratch& scratch) {
  const Layer& d = call.layer;
  const RowShape shape(d);
  const int64_t image_pitch = cut.rows() * d.Q * d.O;
  const PackedBand band(d, shape, scratch);
  for (int64_t n = cut.n0; n < cut.n1; n += shape.images)
    for (int64_t p = cut.row0; p < cut.row1; p += shape.band_rows) {
      const int64_t n1 = std::min(cut.n1, n + shape.images), rows = std::min(shape.band_rows, cut.row1 - p);
      if (!pack_band(call.x, d, shape, n, n1 - n, p - d.padding_h, rows, band)) return false;
      const int64_t at = (n - cut.n0) * image_pitch + (p - cut.row0) * d.Q * d.O;
      const int64_t tiles = ceil_div(rows, shape.tile_rows), calls = tiles * d.O * shape.num_blocks(d);
      const int64_t x_floats = d.H * d.W * d.C, y_next = at + (n1 - n) * shape.tile_rows * d.Q * d.O;
      const Ahead x_ahead(call.x.data, n1 * x_floats, (n1 + shape.images) * x_floats, d.N * x_floats, calls);
      const Ahead y_ahead(y, y_next, y_next + (n1 - n) * rows * d.Q * d.O, cut.images() * image_pitch, calls);
      compute_band(d, shape, lists, constant, x_ahead, y_ahead, n1 - n, rows, image_pitch, y + at, band, scratch);
    }
  return true;
}

}  // namespace
}  // namespace addertrain::cpu
