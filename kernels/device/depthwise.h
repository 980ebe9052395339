// Depthwise layers whose channels lie side by side. A thread keeps the sums of a tile of results in registers, for four
// neighbouring channels, and loads each pixel under the tile once for all taps that see it. Nothing is summed over
// channels, so that a layer is a stream: memory bounds it if few instructions surround the taps. Taps are added row by
// row, which for the response is the order of direct.h.
#pragma once

#include "device/direct.h"
#include "device/platform.h"

namespace addertrain {

constexpr int kDepthwiseThreads = 128;
constexpr int kDepthwiseChannels = 4;  // of a thread
constexpr int kDepthwiseLanes = 32;    // threads side by side along the channels, at most
constexpr int kDepthwisePitch = kDepthwiseLanes * kDepthwiseChannels;  // between the taps in shared memory

template <class T>
struct alignas(kDepthwiseChannels * sizeof(T)) ChannelVector {
  T v[kDepthwiseChannels];
};
using ChannelFloats = ChannelVector<float>;
struct alignas(8) BfloatPairs {
  uint32_t v[2];
};

// Of an image whose channels lie side by side; 32 bits hold its offsets.
struct PixelStrides {
  int n, h, w;
};

// Position (p, q) of the result sees pixel (h, v) of the source at tap (r, s) where p*down - top + r = h*up and
// q*down - left + s = v*up. Forward: the source is x, `down` the stride and `up` 1. Input gradient: the source is dY,
// `up` the stride and `down` 1, and the taps run backwards.
template <class T>
struct DepthwiseParams {
  const T* source;
  const T* x;  // input gradient: where HT is taken
  const T* w;
  T* out;
  PixelStrides source_strides, x_strides, out_strides;
  ImageStrides w_strides;
  int images, channels, height, width;  // of the source
  int out_height, out_width;
  int top, left;
  int first_p, first_q;  // of the first tile, 0 or -1: tap 0 sees a pixel there, so that all tiles have the same taps
  int lanes, chunks;   // a block's threads side by side along the channels; blocks side by side there
  int walks;           // of a block: each walks `steps` tiles down
  int columns, bands;  // walks of an image, side by side and one below the other
  int steps;
};

// Eq. 2: two instructions a tap, and three of an offset-free response, whose terms |w| - |x - w| are rounded as they
// stand: x = 0 adds exactly 0.
template <bool kIsOffsetFree>
struct DepthwiseResponse {
  static constexpr bool kIsGrad = false;
  static ADDERTRAIN_DEVICE float packed(float w) { return w; }
  static ADDERTRAIN_DEVICE Two<float> add(Two<float> sum, Two<float> x, Two<float> w, Two<float>) {
    const Two<float> d = subtract(x, w), distance{fabsf(d.first), fabsf(d.second)};
    if constexpr (!kIsOffsetFree) return subtract(sum, distance);
    const Two<float> term = subtract(Two<float>{fabsf(w.first), fabsf(w.second)}, distance);
    return subtract(sum, Two<float>{-term.first, -term.second});
  }
};

// Eq. 6 and 7 by HT(w - x) = 2 sat((w + 1)/2 - x/2) - 1: three instructions a tap. `w_scaled` is (w + 1)/2, packed so;
// `x_scaled` is x/2.
struct DepthwiseSlope {
  static constexpr bool kIsGrad = true;
  static ADDERTRAIN_DEVICE float packed(float w) { return 0.5f * (w + 1.0f); }
  static ADDERTRAIN_DEVICE Two<float> add(Two<float> sum, Two<float> g, Two<float> w_scaled, Two<float> x_scaled) {
    return {fmaf(g.first, slope(w_scaled.first - x_scaled.first), sum.first),
            fmaf(g.second, slope(w_scaled.second - x_scaled.second), sum.second)};
  }

 private:
  static ADDERTRAIN_DEVICE float slope(float difference) { return fmaf(2.0f, saturate(difference), -1.0f); }
};

// Results of a thread at a time, and blocks that a multiprocessor must hold.
template <class Operation, int kFilterTaps, int kStride>
struct DepthwiseTile {
  using Op = Operation;
  static constexpr int kTaps = kFilterTaps;
  static constexpr int kDown = Op::kIsGrad ? 1 : kStride, kUp = Op::kIsGrad ? kStride : 1;
  static constexpr int kRows = 4, kColumns = kStride == 1 && !Op::kIsGrad ? 4 : 2;  // a gradient keeps x/2 as well
  static constexpr int kMinBlocks = kTaps == 7 ? 3 : 4;
  static constexpr int kSourceRows = ((kRows - 1) * kDown + kTaps - 1) / kUp + 1;
  static constexpr int kSourceColumns = ((kColumns - 1) * kDown + kTaps - 1) / kUp + 1;
  static constexpr int kSharedBytes = (kTaps * kTaps + 1) * kDepthwisePitch * 4;
  using Pixels = ChannelFloats[kSourceColumns];
  using Results = ChannelFloats[kRows][kColumns];
};

// The filters of a block's channels as [tap][channel] in shared memory, and one more row: NaN where a channel's filter
// holds one, which saturating would hide, and otherwise 0. Thread i reads channel i.
template <class Op, int kTaps, class T>
ADDERTRAIN_DEVICE void load_filters(const DepthwiseParams<T>& p, int first_channel, float* filters) {
  const int mine = threadIdx.x, channel = first_channel + mine;
  if (mine >= p.lanes * kDepthwiseChannels || channel >= p.channels) return;
  const T* const from = p.w + channel * p.w_strides.n;
  float nan = 0.0f;
#pragma unroll
  for (int r = 0; r < kTaps; ++r)
#pragma unroll
    for (int s = 0; s < kTaps; ++s) {
      const float w = Op::packed(to_float(from[r * p.w_strides.h + s * p.w_strides.w]));
      const int tap = r * kTaps + s;
      filters[(Op::kIsGrad ? kTaps * kTaps - 1 - tap : tap) * kDepthwisePitch + mine] = w;
      if (w != w) nan = w;
    }
  filters[kTaps * kTaps * kDepthwisePitch + mine] = nan;
}

template <class T>
ADDERTRAIN_DEVICE ChannelFloats load_channels(const T* from) {
  const auto raw = load_vector<ChannelVector<T>>(from);
  ChannelFloats to;
#pragma unroll
  for (int c = 0; c < kDepthwiseChannels; ++c) to.v[c] = to_float(raw.v[c]);
  return to;
}
// One instruction for each number; of `to_float` the compiler makes two for the upper half of a word.
ADDERTRAIN_DEVICE ChannelFloats load_channels(const __nv_bfloat16* from) {
  const auto pairs = load_vector<BfloatPairs>(from);
  return {bits_as_float(pairs.v[0] << 16), bits_as_float(pairs.v[0] & 0xffff0000u), bits_as_float(pairs.v[1] << 16),
          bits_as_float(pairs.v[1] & 0xffff0000u)};
}

// Neighbouring pixels of a row, `step` elements apart. Outside [0, width), and everywhere if the row is outside, lies
// the spatial zero pad.
template <int kCount, class T>
ADDERTRAIN_DEVICE void load_pixels(const T* from, int step, int first, int width, bool is_row_inside,
                                   ChannelFloats (&pixels)[kCount]) {
  if (is_row_inside && first >= 0 && first + kCount <= width) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) pixels[j] = load_channels(from + j * step);
  } else {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      pixels[j] = {};
      if (is_row_inside && is_inside(first + j, width)) pixels[j] = load_channels(from + j * step);
    }
  }
}

// A row of pixels against a row of the filters: every result of a row of the tile.
template <class Tile, int kColumns>
ADDERTRAIN_DEVICE void add_row(const typename Tile::Pixels& pixels, const float* filters,
                               const ChannelFloats (&x)[kColumns], ChannelFloats (&sums)[kColumns]) {
#pragma unroll
  for (int s = 0; s < Tile::kTaps; ++s) {
    const auto w = load_vector<ChannelFloats>(filters + s * kDepthwisePitch);
#pragma unroll
    for (int q = 0; q < kColumns; ++q) {
      if ((q * Tile::kDown + s) % Tile::kUp != 0) continue;
      const ChannelFloats& pixel = pixels[(q * Tile::kDown + s) / Tile::kUp];
#pragma unroll
      for (int c = 0; c < kDepthwiseChannels; c += 2) {
        const auto sum = Tile::Op::add({sums[q].v[c], sums[q].v[c + 1]}, {pixel.v[c], pixel.v[c + 1]},
                                       {w.v[c], w.v[c + 1]}, {x[q].v[c], x[q].v[c + 1]});
        sums[q].v[c] = sum.first, sums[q].v[c + 1] = sum.second;
      }
    }
  }
}

// The sums of a tile over all rows of pixels under it. The loop over them is not unrolled: other warps compute while
// one waits for its row.
template <class Tile, class T>
ADDERTRAIN_DEVICE void add_tile(const DepthwiseParams<T>& p, const T* source, const float* filters, int first_p,
                                int first_q, const typename Tile::Results& x, typename Tile::Results& sums) {
  constexpr int kRowFilters = Tile::kTaps * kDepthwisePitch;
  const int first_h = (first_p * Tile::kDown - p.top) / Tile::kUp;
  const int first_v = (first_q * Tile::kDown - p.left) / Tile::kUp;
  const T* from = source + (first_h * p.source_strides.h + first_v * p.source_strides.w);
#pragma unroll 1
  for (int i = 0; i < Tile::kSourceRows; ++i) {
    typename Tile::Pixels pixels;
    load_pixels(from, p.source_strides.w, first_v, p.width, is_inside(first_h + i, p.height), pixels);
#pragma unroll
    for (int k = 0; k < Tile::kRows; ++k) {
      const int r = i * Tile::kUp - k * Tile::kDown;
      if (r >= 0 && r < Tile::kTaps) add_row<Tile>(pixels, filters - k * Tile::kDown * kRowFilters, x[k], sums[k]);
    }
    from += p.source_strides.h, filters += Tile::kUp * kRowFilters;
  }
}

// x/2 of a tile. A NaN in it, or in its channel's filter, starts the sums, because saturating makes 0 of it.
template <class Tile, class T>
ADDERTRAIN_DEVICE void load_x(const DepthwiseParams<T>& p, const T* from, const ChannelFloats& nan, int first_p,
                              int first_q, typename Tile::Results& x, typename Tile::Results& sums) {
  from += first_p * p.x_strides.h + first_q * p.x_strides.w;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i, from += p.x_strides.h) {
    load_pixels(from, p.x_strides.w, first_q, p.out_width, is_inside(first_p + i, p.out_height), x[i]);
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j)
#pragma unroll
      for (int c = 0; c < kDepthwiseChannels; ++c) {
        float& v = x[i][j].v[c];
        v = fmaf(0.5f, v, nan.v[c]);
        sums[i][j].v[c] = v == v ? 0.0f : v;
      }
  }
}

template <class T>
ADDERTRAIN_DEVICE void store_channels(T* to, const ChannelFloats& from) {
  ChannelVector<T> result;
#pragma unroll
  for (int c = 0; c < kDepthwiseChannels; ++c) result.v[c] = from_float<T>(from.v[c]);
  store_vector(to, result);
}

template <class Tile, class T>
ADDERTRAIN_DEVICE void store_tile(const DepthwiseParams<T>& p, T* to, int first_p, int first_q,
                                  const typename Tile::Results& sums) {
  to += first_p * p.out_strides.h + first_q * p.out_strides.w;
  const bool are_rows_inside = first_p >= 0 && first_p + Tile::kRows <= p.out_height;
  if (are_rows_inside && first_q >= 0 && first_q + Tile::kColumns <= p.out_width) {
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i, to += p.out_strides.h)
#pragma unroll
      for (int j = 0; j < Tile::kColumns; ++j) store_channels(to + j * p.out_strides.w, sums[i][j]);
  } else {
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i, to += p.out_strides.h)
#pragma unroll
      for (int j = 0; j < Tile::kColumns; ++j)
        if (is_inside(first_p + i, p.out_height) && is_inside(first_q + j, p.out_width))
          store_channels(to + j * p.out_strides.w, sums[i][j]);
  }
}

template <class T, class Op, int kTaps, int kStride>
__global__ void __launch_bounds__(kDepthwiseThreads, DepthwiseTile<Op, kTaps, kStride>::kMinBlocks)
    adder_depthwise_kernel(const __grid_constant__ DepthwiseParams<T> p) {
  using Tile = DepthwiseTile<Op, kTaps, kStride>;
  float* const shared = reinterpret_cast<float*>(dynamic_shared());
  const int first_channel = static_cast<int>(blockIdx.x % p.chunks) * p.lanes * kDepthwiseChannels;
  load_filters<Op, kTaps>(p, first_channel, shared);
  barrier();

  const int walk_of_block = threadIdx.x / static_cast<unsigned>(p.lanes);
  const int lane = static_cast<int>(threadIdx.x) - walk_of_block * p.lanes;
  const int channel = first_channel + lane * kDepthwiseChannels;
  const unsigned walk = blockIdx.x / p.chunks * p.walks + walk_of_block;
  const int band_of_all = walk / p.columns;
  const int first_q = p.first_q + static_cast<int>(walk - band_of_all * p.columns) * Tile::kColumns;
  const int image = static_cast<unsigned>(band_of_all) / p.bands;
  if (walk_of_block >= p.walks || channel >= p.channels || image >= p.images) return;

  const float* const filters = shared + lane * kDepthwiseChannels;
  const T* const source = p.source + (image * p.source_strides.n + channel);
  T* const out = p.out + (image * p.out_strides.n + channel);
  int first_p = p.first_p + (band_of_all - image * p.bands) * p.steps * Tile::kRows;
  for (int step = 0; step < p.steps && first_p < p.out_height; ++step, first_p += Tile::kRows) {
    typename Tile::Results x = {}, sums = {};
    if constexpr (Op::kIsGrad) {
      const auto nan = load_vector<ChannelFloats>(filters + kTaps * kTaps * kDepthwisePitch);
      load_x<Tile>(p, p.x + (image * p.x_strides.n + channel), nan, first_p, first_q, x, sums);
    }
    add_tile<Tile>(p, source, filters, first_p, first_q, x, sums);
    store_tile<Tile>(p, out, first_p, first_q, sums);
  }
}

}  // namespace addertrain
