// Batch normalisation with ReLU over [rows][columns], channels side by side, where the sums of x came with it:
//
//   y = relu(x * scale + shift),  scale = weight / sqrt(var + eps),  shift = bias - mean * scale
//   dx = scale * (g - sum g / n - (x - mean) * sum g (x - mean) / (n (var + eps))),  g = dy where y > 0
//
// Bound by memory: x is read once forward and twice backward. A thread keeps its columns and goes down the rows; sums
// have one order.
#pragma once

#include "device/platform.h"

namespace addertrain {

constexpr int kNormThreads = 256;

// What each column's numbers are, [columns] each, and how rows go over blocks.
struct NormShape {
  int64_t rows, rows_per_block;
  int columns;
  int lanes;  // threads side by side along a row: a power of two
};

struct NormColumns {
  float *mean, *var, *scale, *shift;
  float *slope, *offset;  // backward: dx = scale g + slope (x - mean) + offset
};

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) NormVector {
  T v[kWidth];
};

// A thread's columns, and its rows: first, first + step, ... before end.
template <int kWidth>
struct NormPlace {
  int lane, slot, column, step;
  int64_t first, end;

  ADDERTRAIN_DEVICE explicit NormPlace(const NormShape& s) {
    lane = threadIdx.x & (s.lanes - 1), slot = threadIdx.x / s.lanes;
    column = (blockIdx.y * s.lanes + lane) * kWidth, step = kNormThreads / s.lanes;
    first = blockIdx.x * s.rows_per_block + slot;
    end = min(s.rows, (blockIdx.x + int64_t{1}) * s.rows_per_block);
  }
};

template <int kWidth>
ADDERTRAIN_DEVICE void load_columns(const float* values, int column, float (&to)[kWidth]) {
#pragma unroll
  for (int q = 0; q < kWidth; ++q) to[q] = values[column + q];
}

struct NormStatisticsParams {
  const double* sums;  // [sum, sum of squares][column] of x; null: mean and var are there already
  const float *weight, *bias;
  double rows, eps;
  int num_columns;
  NormColumns columns;
};

// One thread a column: mean and biased variance, and the two numbers that normalise.
__global__ void __launch_bounds__(kNormThreads)
    adder_norm_statistics_kernel(const __grid_constant__ NormStatisticsParams p) {
  const int n = blockIdx.x * kNormThreads + threadIdx.x;
  if (n >= p.num_columns) return;
  if (p.sums) {
    const double mean = p.sums[n] / p.rows, var = p.sums[p.num_columns + n] / p.rows - mean * mean;
    p.columns.mean[n] = static_cast<float>(mean);
    p.columns.var[n] = var < 0.0 ? 0.0f : static_cast<float>(var);  // a NaN stays
  }
  const double scale = p.weight[n] / sqrt(p.columns.var[n] + p.eps);
  p.columns.scale[n] = static_cast<float>(scale);
  p.columns.shift[n] = static_cast<float>(p.bias[n] - p.columns.mean[n] * scale);
}

template <class T>
struct NormParams {
  NormShape shape;
  NormColumns columns;
  const T* x;
  const T* dy;   // backward
  T* out;        // y, or dx
  float* parts;  // backward's sums, [block of rows][sum g, sum g (x - mean)][column]
  bool relu;
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) adder_norm_apply_kernel(const __grid_constant__ NormParams<T> p) {
  const NormPlace<kWidth> place(p.shape);
  if (place.column >= p.shape.columns) return;
  float scale[kWidth], shift[kWidth];
  load_columns(p.columns.scale, place.column, scale), load_columns(p.columns.shift, place.column, shift);
  for (int64_t row = place.first; row < place.end; row += place.step) {
    const int64_t at = row * p.shape.columns + place.column;
    auto x = load_vector<NormVector<T, kWidth>>(p.x + at);
#pragma unroll
    for (int q = 0; q < kWidth; ++q) {
      const float y = fmaf(to_float(x.v[q]), scale[q], shift[q]);
      x.v[q] = from_float<T>(p.relu && y < 0.0f ? 0.0f : y);  // a NaN stays
    }
    store_vector(p.out + at, x);
  }
}

// The gradient of what the ReLU let through.
ADDERTRAIN_DEVICE float behind_relu(float dy, float x, float scale, float shift, bool relu) {
  return relu && fmaf(x, scale, shift) <= 0.0f ? 0.0f : dy;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads)
    adder_norm_gradient_sums_kernel(const __grid_constant__ NormParams<T> p) {
  const NormPlace<kWidth> place(p.shape);
  float sums[kWidth] = {}, products[kWidth] = {};
  if (place.column < p.shape.columns) {
    float mean[kWidth], scale[kWidth], shift[kWidth];
    load_columns(p.columns.mean, place.column, mean);
    load_columns(p.columns.scale, place.column, scale), load_columns(p.columns.shift, place.column, shift);
    for (int64_t row = place.first; row < place.end; row += place.step) {
      const int64_t at = row * p.shape.columns + place.column;
      const auto x = load_vector<NormVector<T, kWidth>>(p.x + at);
      const auto dy = load_vector<NormVector<T, kWidth>>(p.dy + at);
#pragma unroll
      for (int q = 0; q < kWidth; ++q) {
        const float v = to_float(x.v[q]), g = behind_relu(to_float(dy.v[q]), v, scale[q], shift[q], p.relu);
        sums[q] += g, products[q] = fmaf(g, v - mean[q], products[q]);
      }
    }
  }
  float* const shared = reinterpret_cast<float*>(dynamic_shared());  // [thread][both sums][kWidth]
#pragma unroll
  for (int q = 0; q < kWidth; ++q) {
    shared[threadIdx.x * 2 * kWidth + q] = sums[q];
    shared[threadIdx.x * 2 * kWidth + kWidth + q] = products[q];
  }
  barrier();
  if (place.slot != 0 || place.column >= p.shape.columns) return;
#pragma unroll
  for (int i = 0; i < 2 * kWidth; ++i) {
    float total = 0.0f;
    for (int slot = 0; slot < place.step; ++slot) total += shared[(slot * p.shape.lanes + place.lane) * 2 * kWidth + i];
    p.parts[(int64_t{2} * blockIdx.x + i / kWidth) * p.shape.columns + place.column + i % kWidth] = total;
  }
}

constexpr int kNormLanes = 32;  // columns of a block that adds up parts

struct NormGradientParams {
  const float* parts;
  int num_parts, num_columns;
  double rows, eps;
  const float* weight;
  NormColumns columns;
  float *dweight, *dbias;
};

// A column's parts in order, by eight threads; then its gradients, and the numbers of its dx.
__global__ void __launch_bounds__(kNormThreads)
    adder_norm_gradient_columns_kernel(const __grid_constant__ NormGradientParams p) {
  double* const shared = reinterpret_cast<double*>(dynamic_shared());
  const int lane = threadIdx.x % kNormLanes, first = threadIdx.x / kNormLanes, n = blockIdx.x * kNormLanes + lane;
  double sum = 0.0, product = 0.0;
  if (n < p.num_columns)
    for (int part = first; part < p.num_parts; part += kNormThreads / kNormLanes) {
      sum += p.parts[int64_t{2} * part * p.num_columns + n];
      product += p.parts[(int64_t{2} * part + 1) * p.num_columns + n];
    }
  shared[threadIdx.x] = sum, shared[kNormThreads + threadIdx.x] = product;
  barrier();
  if (first != 0 || n >= p.num_columns) return;
  for (int other = lane + kNormLanes; other < kNormThreads; other += kNormLanes)
    sum += shared[other], product += shared[kNormThreads + other];
  const double var = p.columns.var[n] + p.eps, scale = p.weight[n] / sqrt(var);
  p.dbias[n] = static_cast<float>(sum), p.dweight[n] = static_cast<float>(product / sqrt(var));
  p.columns.slope[n] = static_cast<float>(-scale * product / (p.rows * var));
  p.columns.offset[n] = static_cast<float>(-scale * sum / p.rows);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) adder_norm_gradient_kernel(const __grid_constant__ NormParams<T> p) {
  const NormPlace<kWidth> place(p.shape);
  if (place.column >= p.shape.columns) return;
  float mean[kWidth], scale[kWidth], shift[kWidth], slope[kWidth], offset[kWidth];
  load_columns(p.columns.mean, place.column, mean);
  load_columns(p.columns.scale, place.column, scale), load_columns(p.columns.shift, place.column, shift);
  load_columns(p.columns.slope, place.column, slope), load_columns(p.columns.offset, place.column, offset);
  for (int64_t row = place.first; row < place.end; row += place.step) {
    const int64_t at = row * p.shape.columns + place.column;
    const auto x = load_vector<NormVector<T, kWidth>>(p.x + at);
    auto dy = load_vector<NormVector<T, kWidth>>(p.dy + at);
#pragma unroll
    for (int q = 0; q < kWidth; ++q) {
      const float v = to_float(x.v[q]), g = behind_relu(to_float(dy.v[q]), v, scale[q], shift[q], p.relu);
      dy.v[q] = from_float<T>(fmaf(scale[q], g, fmaf(slope[q], v - mean[q], offset[q])));
    }
    store_vector(p.out + at, dy);
  }
}

}  // namespace addertrain
