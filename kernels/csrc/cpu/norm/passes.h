// Batch normalisation with ReLU over [rows][C] in one instruction set: the images interleaved, rows = N*H*W.
//
//   y = max(0, scale * x + shift [+ residual]),  scale = weight / sqrt(var + eps),  shift = bias - mean * scale
//
// Plain loops that the compiler vectorises. Several rows are taken as one long row of `width` floats with the channels'
// coefficients repeated, so that six channels fill registers as well as sixty-four. Sums are taken chunk by chunk with
// the chunk's own mean (a response's mean may be a thousand times its deviation) and merged in float64 in a fixed order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/units.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kLongRow = 256;  // floats: enough registers in flight to hide the latency of the sums

// Rows folded into a long one.
inline int64_t rows_per_long_row(int64_t C) { return std::max<int64_t>(1, kLongRow / C); }

// C values repeated to a long row.
inline void repeat(const float* values, int64_t C, int64_t width, float* to) {
  for (int64_t i = 0; i < width; i += C) std::memcpy(to + i, values, sizeof(float) * C);
}

// Sums over the repeats of a long row.
inline void fold(const float* sums, int64_t C, int64_t width, double* to) {
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0;
    for (int64_t i = c; i < width; i += C) sum += sums[i];
    to[c] = sum;
  }
}

struct NormScratch {
  Scratch rows;
};
thread_local NormScratch norm_scratch;

// For every long row of x[begin, end) (floats), and the shorter tail: body(position, count <= width).
template <typename Body>
inline void for_long_rows(int64_t begin, int64_t end, int64_t width, const Body& body) {
  int64_t i = begin;
  for (; i + width <= end; i += width) body(i, width);
  if (i < end) body(i, end - i);
}

// ---------------------------------------------------------------- statistics

// Sum and centred sum of squares of a chunk: sums[c], squares[c].
inline void chunk_moments(const float* x, int64_t begin, int64_t end, int64_t C, double* sums, double* squares) {
  const int64_t width = rows_per_long_row(C) * C;
  float* __restrict sum = norm_scratch.rows.entries(3 * width);
  float* mean = sum + width;
  float* square = mean + width;
  std::memset(sum, 0, sizeof(float) * width);
  std::memset(square, 0, sizeof(float) * width);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    const float* __restrict from = x + at;
    for (int64_t i = 0; i < count; ++i) sum[i] += from[i];
  });
  fold(sum, C, width, sums);
  const double per_row = static_cast<double>(C) / static_cast<double>(end - begin);
  for (int64_t c = 0; c < C; ++c) mean[c] = static_cast<float>(sums[c] * per_row);
  repeat(mean, C, width, mean);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    const float* __restrict from = x + at;
    for (int64_t i = 0; i < count; ++i) square[i] += (from[i] - mean[i]) * (from[i] - mean[i]);
  });
  fold(square, C, width, squares);
  // The sum is about m, the mean rounded to float32: sum (x - m)^2 = sum (x - mean)^2 + n (mean - m)^2.
  for (int64_t c = 0; c < C; ++c) {
    const double miss = sums[c] * per_row - static_cast<double>(mean[c]);
    squares[c] -= miss * miss / per_row;
  }
}

// y = max(0, a x + b) over x[begin, end), begin at the start of a row.
inline void apply_norm(const DenseNormCall& call, const float* scale, const float* shift, int64_t begin, int64_t end,
                       float* y) {
  const int64_t width = rows_per_long_row(call.C) * call.C;
  float* a = norm_scratch.rows.entries(2 * width);
  float* b = a + width;
  repeat(scale, call.C, width, a);
  repeat(shift, call.C, width, b);
  const float floor = call.relu ? 0.0f : -__builtin_huge_valf();
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    const float* __restrict from = call.x + at;
    float* __restrict to = y + at;
    for (int64_t i = 0; i < count; ++i) {
      const float value = a[i] * from[i] + b[i];
      to[i] = value < floor ? floor : value;  // a NaN compares false and stays
    }
  });
}

inline void add_residual(const float* __restrict x, const float* __restrict residual, const float* __restrict a,
                         const float* __restrict b, int64_t count, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = a[i] * x[i] + b[i] + residual[i];
    y[i] = value < 0.0f ? 0.0f : value;
  }
}

// y = max(0, a x + b + residual).
inline void apply_norm_residual(const DenseNormCall& call, const float* residual, const float* scale,
                                const float* shift, int64_t begin, int64_t end, float* y) {
  const int64_t width = rows_per_long_row(call.C) * call.C;
  float* a = norm_scratch.rows.entries(2 * width);
  float* b = a + width;
  repeat(scale, call.C, width, a);
  repeat(shift, call.C, width, b);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    add_residual(call.x + at, residual + at, a, b, count, y + at);
  });
}

// ---------------------------------------------------------------- gradients

// One long row; a function of its own because the compiler trusts __restrict on parameters alone.
inline void add_gradient_sums(bool relu, const float* __restrict x, const float* __restrict dy,
                              const float* __restrict a, const float* __restrict b, const float* __restrict mean,
                              int64_t count, float* __restrict sum, float* __restrict product) {
  for (int64_t i = 0; i < count; ++i) {
    const float upper = dy[i];  // loaded whether needed or not: a conditional load would not vectorise
    const float kept = !relu || a[i] * x[i] + b[i] > 0.0f ? upper : 0.0f;
    sum[i] += kept;
    product[i] += kept * (x[i] - mean[i]);
  }
}

// Of a chunk: sums[c] = sum g, products[c] = sum g (x - mean), where g = dy if y > 0 (or no ReLU) else 0.
inline void chunk_gradient_sums(const DenseNormCall& call, const float* dy, const float* scale, const float* shift,
                                const float* mean, int64_t begin, int64_t end, double* sums, double* products) {
  const int64_t C = call.C, width = rows_per_long_row(C) * C;
  float* sum = norm_scratch.rows.entries(5 * width);
  float *product = sum + width, *a = product + width, *b = a + width, *m = b + width;
  std::memset(sum, 0, sizeof(float) * 2 * width);
  repeat(scale, C, width, a);
  repeat(shift, C, width, b);
  repeat(mean, C, width, m);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    add_gradient_sums(call.relu, call.x + at, dy + at, a, b, m, count, sum, product);
  });
  fold(sum, C, width, sums);
  fold(product, C, width, products);
}

inline void keep_gradient(const float* __restrict x, const float* __restrict dy, const float* __restrict y,
                          const float* __restrict mean, int64_t count, float* __restrict sum,
                          float* __restrict product, float* __restrict g) {
  for (int64_t i = 0; i < count; ++i) {
    const float upper = dy[i];
    const float kept = y[i] > 0.0f ? upper : 0.0f;
    g[i] = kept;
    sum[i] += kept;
    product[i] += kept * (x[i] - mean[i]);
  }
}

// The same sums by the output y, to which a residual was added; g is also the gradient of the residual.
inline void chunk_residual_gradient_sums(const DenseNormCall& call, const float* dy, const float* y, const float* mean,
                                         int64_t begin, int64_t end, double* sums, double* products, float* g) {
  const int64_t C = call.C, width = rows_per_long_row(C) * C;
  float* sum = norm_scratch.rows.entries(3 * width);
  float *product = sum + width, *m = product + width;
  std::memset(sum, 0, sizeof(float) * 2 * width);
  repeat(mean, C, width, m);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    keep_gradient(call.x + at, dy + at, y + at, m, count, sum, product, g + at);
  });
  fold(sum, C, width, sums);
  fold(product, C, width, products);
}

inline void combine_gradient(bool relu, const float* __restrict x, const float* __restrict dy,
                             const float* __restrict a, const float* __restrict b, const float* __restrict slope,
                             const float* __restrict offset, int64_t count, float* __restrict dx) {
  for (int64_t i = 0; i < count; ++i) {
    const float upper = dy[i];
    const float kept = !relu || a[i] * x[i] + b[i] > 0.0f ? upper : 0.0f;
    dx[i] = a[i] * kept + slope[i] * x[i] + offset[i];
  }
}

// dx = scale g + slope x + offset over [begin, end).
inline void apply_norm_gradient(const DenseNormCall& call, const float* dy, const float* scale, const float* shift,
                                const float* slope, const float* offset, int64_t begin, int64_t end, float* dx) {
  const int64_t C = call.C, width = rows_per_long_row(C) * C;
  float* a = norm_scratch.rows.entries(4 * width);
  float *b = a + width, *s = b + width, *t = s + width;
  repeat(scale, C, width, a);
  repeat(shift, C, width, b);
  repeat(slope, C, width, s);
  repeat(offset, C, width, t);
  for_long_rows(begin, end, width, [&](int64_t at, int64_t count) {
    combine_gradient(call.relu, call.x + at, dy + at, a, b, s, t, count, dx + at);
  });
}

constexpr NormPasses kNormPasses{chunk_moments,       apply_norm,                   apply_norm_residual,
                                 chunk_gradient_sums, chunk_residual_gradient_sums, apply_norm_gradient};

}  // namespace
}  // namespace addertrain::cpu
