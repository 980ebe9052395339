// The forward pass over inputs with zeros, for one instruction set (a `Simd` is in scope).
//
// Where x >= 0, a filter's negative elements count as 0 (forward/tiles.h), so x = 0 contributes min(0, w) = 0 to every
// response: half of what comes out of a ReLU can be left out without changing a bit of the result. Each pixel's non-zero
// channels are listed once; a tile walks the lists instead of the channels.
#pragma once

#include "csrc/cpu/forward/tiles.h"

namespace addertrain::cpu {
namespace {

// A unit's non-zero channels, chunk by chunk of channels: of pixel i values[i * pitch ..) and their channels, of which
// chunk k ends before entry ends[i * num_chunks + k].
struct NonZeros {
  const float* values;
  const int32_t* channels;
  const int32_t* ends;
  int64_t num_chunks;
  int64_t pitch;        // entries between pixels
  int64_t row_pitch;    // pixels between rows
  int64_t image_pitch;  // pixels between images
};

struct NonZeroScratch {
  Memory<float> values;
  Memory<int32_t> channels, ends;
};

constexpr int64_t kSampledPixels = 64;

// With a larger share of non-zeros than this, walking lists does not pay: on short rows what a cache holds is used too
// few times (docs/kernels.md).
inline double largest_share(const Layer& d) {
  constexpr int64_t kLongRow = 14;
  return d.Q >= kLongRow ? 0.5 : 0.3;
}

inline bool can_be_sparse(const Layer& d, const Walk& walk) {
  return Simd::kHasCompress && walk.is_sliding && d.C >= Simd::kLanes;
}

// A step through rows of pixels that comes to every column as often: one in common with their length would meet some
// columns only, such as those of spatial padding.
inline int64_t fair_step(int64_t step, int64_t columns) {
  const auto has_common_factor = [&] {
    int64_t a = step, b = columns;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    return a != 1;
  };
  while (has_common_factor()) ++step;
  return step;
}

// Whether lists pay, by a sample of pixels, those of the padding included. Lists of a dense unit would only push its
// filters out of the cache.
inline bool has_few_non_zeros(const Buffer& x, int64_t images, const Window& window, const Layer& d) {
  const int64_t C = d.C, pixels = images * window.rows * window.columns;
  const int64_t step = fair_step(ceil_div(pixels, kSampledPixels), window.columns);
  int64_t non_zeros = 0, sampled = 0;
  for (int64_t at = 0; at < pixels; at += step, sampled += C) {
    const int64_t row = at / window.columns, image = row / window.rows;
    const float* pixel = x.data + image * x.image_pitch + row % window.rows * x.row_pitch + at % window.columns * C;
    for (int64_t c = 0; c < C; c += Simd::kLanes)
      non_zeros += Simd::count_non_zeros(pixel + c, lanes_left(C, c));
  }
  return static_cast<double>(non_zeros) < largest_share(d) * static_cast<double>(sampled);
}

// How many channels a tile walks at a time: as many as keep their filters in the nearest cache, where every pixel of the
// tile finds them again.
inline int64_t channels_of_chunk(const Layer& d) {
  constexpr int64_t kNearestFloats = 6 * 1024;
  const int64_t register_floats = d.S * FilterBlocks(d).width(0) * Simd::kLanes * Simd::kLanes;
  return std::max<int64_t>(1, kNearestFloats / register_floats) * Simd::kLanes;
}

inline NonZeros list_non_zeros(const Buffer& x, int64_t images, const Window& window, const Layer& d,
                               NonZeroScratch& scratch) {
  const int64_t C = d.C, chunk = channels_of_chunk(d), num_chunks = ceil_div(C, chunk);
  const int64_t pitch = C + Simd::kLanes;  // a register is stored whole
  const int64_t pixels = images * window.rows * window.columns;
  float* values = scratch.values.entries(pixels * pitch);
  int32_t* channels = scratch.channels.entries(pixels * pitch);
  int32_t* ends = scratch.ends.entries(pixels * num_chunks);
  int32_t* end = ends;
  int64_t at = 0;
  for (int64_t n = 0; n < images; ++n)
    for (int64_t i = 0; i < window.rows; ++i) {
      const float* pixel = x.data + n * x.image_pitch + i * x.row_pitch;
      for (int64_t v = 0; v < window.columns; ++v, at += pitch, pixel += C) {
        int32_t count = 0;
        for (int64_t c0 = 0; c0 < C; c0 += chunk, *end++ = count)
          for (int64_t c = c0; c < std::min(C, c0 + chunk); c += Simd::kLanes)
            count += Simd::compress_non_zeros(Simd::load_first(pixel + c, lanes_left(C, c)), static_cast<int32_t>(c),
                                              values + at + count, channels + at + count);
      }
    }
  return {values, channels, ends, num_chunks, pitch, window.columns, window.rows * window.columns};
}

// As sliding_tile, over the lists of the pixels from `pixel` on; run r reads the row r * `rows_apart` further down.
template <int S, int V, int M>
void sparse_tile(const ForwardTile& t, const NonZeros& x, int64_t pixel, int64_t rows_apart, const float* x_sum,
                 float* y, int64_t num_done) {
  constexpr int64_t kChannelFloats = S * V * Simd::kLanes;
  Simd::Reg acc[M][V];
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m) load_sums<V>(t, y + m * t.y_pitch, acc[m]);
  const float* w = t.filters;
  for (int64_t run = 0; run < t.num_runs; ++run, w += t.run_length * kChannelFloats) {
    const int64_t row = pixel + (t.first_run + run) * rows_apart;
    for (int64_t chunk = 0; chunk < x.num_chunks; ++chunk) {
#pragma GCC unroll 40
      for (int i = 0; i < M + S - 1; ++i) {
        const float* values = x.values + (row + i) * x.pitch;
        const int32_t* channels = x.channels + (row + i) * x.pitch;
        const int32_t* end = x.ends + (row + i) * x.num_chunks + chunk;
        const int32_t last = *end;
        for (int32_t j = chunk == 0 ? 0 : end[-1]; j < last; ++j) {
          const Simd::Reg value = Simd::broadcast_at(values + j);
          const float* filter = w + channels[j] * kChannelFloats;
#pragma GCC unroll 8
          for (int s = 0; s < S; ++s) {
            const int m = i - s;
            if (m < 0 || m >= M) continue;
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
              acc[m][v] = Simd::add_min(acc[m][v], value, Simd::load(filter + (s * V + v) * Simd::kLanes));
          }
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int m = 0; m < M; ++m)
    if (m >= num_done) store_response<V>(t, acc[m], x_sum[m], y + m * t.y_pitch);
}

}  // namespace
}  // namespace addertrain::cpu
