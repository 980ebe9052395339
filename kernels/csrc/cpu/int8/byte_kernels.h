// What an instruction set offers for distances of bytes: plain C++, no torch. Results are integers, or numbers that are
// rounded operation by operation, so every set gives the same ones.
#pragma once

#include <cstdint>

#include "device/layer.h"

namespace addertrain::cpu {

// What becomes of a distance: byte = the integer nearest to distance * scale[o] + shift[o] + residual * residual_scale,
// within low .. 255; a NaN becomes `low`. The residual may be missing.
struct ByteNorm {
  const float* scale;
  const float* shift;
  const uint8_t* residual;  // as y
  float residual_scale;
  float low;
};

// x as [N][H][W][C] and y as [N][P][Q][O]; a pixel outside the image consists of the byte `outside`.
struct ByteCall {
  Layer layer;
  const uint8_t* x;
  uint8_t outside;
  const uint8_t* packed;
  const int32_t* pixel_sums;
  int32_t* distances;  // the result, or null: then it is `bytes`, by `norm`
  uint8_t* bytes;
  ByteNorm norm;
};

// A convolution of 16-bit words: sum * scale[o] + shift[o], and where `bytes` is given the nearest byte within low .. 255.
struct WordCall {
  Layer layer;           // without dilation
  const int16_t* words;  // of `pad`
  const uint8_t* packed;
  const float* scale;
  const float* shift;
  float* numbers;        // the result as [N][P][Q][O], or null: then it is `bytes`
  uint8_t* bytes;
  float low;
};

struct WordKernels {
  int64_t lanes;  // how packed filters lie (int8/words.h)
  int64_t (*packed_bytes)(const Layer&);
  // Blocks of filters are packed independently.
  int64_t (*num_blocks)(const Layer&);
  void (*pack)(const Layer&, const int16_t* w, const ImageStrides&, int64_t block_begin, int64_t block_end,
               uint8_t* packed);
  // The images as words, x * factor rounded within +-most (a NaN: -most), between rows and columns of padding.
  int64_t (*num_words)(const Layer&);
  void (*pad)(const Layer&, const float* x, float factor, float most, int64_t row_begin, int64_t row_end, int16_t* words);
  // Units are independent, and each result belongs to one.
  int64_t (*num_units)(const Layer&);
  void (*compute)(const WordCall&, int64_t unit_begin, int64_t unit_end);
};

struct ByteKernels {
  const char* name;
  int64_t lanes, depth;  // how packed filters lie (int8/pack.h)
  int64_t (*packed_bytes)(const Layer&);
  // Blocks of filters are packed independently.
  int64_t (*num_blocks)(const Layer&);
  void (*pack)(const Layer&, const uint8_t* w, const ImageStrides&, int64_t block_begin, int64_t block_end,
               uint8_t* packed);
  // Sums over the channels of each pixel; how many `compute` wants: those of all pixels, or none.
  int64_t (*num_pixel_sums)(const Layer&);
  void (*add_up_pixels)(const Layer&, const uint8_t* x, int64_t pixel_begin, int64_t pixel_end, int32_t* sums);
  // Units are independent, and each result belongs to one.
  int64_t (*num_units)(const Layer&);
  void (*compute)(const ByteCall&, int64_t unit_begin, int64_t unit_end);
  // bytes[i] = the integer nearest to x[i] * factor + zero, within 0 .. 255; 0 for a NaN.
  void (*quantise)(const float* x, float factor, float zero, int64_t begin, int64_t end, uint8_t* bytes);
  WordKernels words;
  // Rows [begin, end) of [N * P][Q][C]: the maximum over each window of x.
  void (*highest)(const Layer&, const uint8_t* x, int64_t begin, int64_t end, uint8_t* y);
  // sums[n][c] over the pixels of images [begin, end).
  void (*add_up_images)(const uint8_t* x, int64_t pixels, int64_t C, int64_t begin, int64_t end, int64_t* sums);
};

const ByteKernels& avx512_vnni_byte_kernels();
const ByteKernels& avx512_byte_kernels();
const ByteKernels& avx2_byte_kernels();
const ByteKernels& neon_byte_kernels();
const ByteKernels& portable_byte_kernels();

}  // namespace addertrain::cpu
