// From sums to results: what is added per column, evaluation's scale, shift, residual and ReLU, training's statistics.
#pragma once

#include "device/gather.h"

namespace addertrain {

// y = relu((v + column[n]) * scale[n] + shift[n] + residual), the parts that are there; the response before them is
// what the statistics are of.
template <class Out>
struct Epilogue {
  const float* column;   // the filters' own sums, or NaN where a filter that the column adds up holds one
  const float* scale;    // and shift, or null
  const float* shift;
  const Out* residual;   // with the result's strides, or null
  bool relu;
  float* partial;        // instead of a result: this split's sums, [split][position][column]
  float* statistics;     // or null: [tile][sum, sum of squares][column]

  ADDERTRAIN_DEVICE float response(float v, int n) const { return v + column[n]; }
  ADDERTRAIN_DEVICE Out result(float y, int n, int64_t at) const {
    if (scale) y = fmaf(y, scale[n], shift[n]);
    if (residual) y += to_float(residual[at]);
    if (relu) y = y < 0.0f ? 0.0f : y;  // a NaN stays
    return from_float<Out>(y);
  }
};

// Element of the result, and number of the position among all of the result, of row m.
ADDERTRAIN_DEVICE int64_t output_offset(const Phase& phase, const ImageStrides& strides, int m) {
  const Position at(phase, m);
  const int64_t h = at.i * phase.v.out_step + phase.v.out_offset, w = at.j * phase.h.out_step + phase.h.out_offset;
  return at.image * strides.n + h * strides.h + w * strides.w;
}
ADDERTRAIN_DEVICE int64_t output_number(const Problem& p, const Phase& phase, int m) {
  const int64_t row = p.out_w;
  return output_offset(phase, {row * p.out_h, 0, row, 1}, m);
}

// Adds up kSlots threads' sums for each of kColumns columns, slot by slot, and writes the tile's own.
template <int kSlots, int kColumns>
struct ColumnStatistics {
  float* shared;  // [2][kSlots][kColumns]

  ADDERTRAIN_DEVICE void put(int slot, int column, float sum, float squares) const {
    shared[slot * kColumns + column] = sum;
    shared[(kSlots + slot) * kColumns + column] = squares;
  }
  // After a barrier. `tile_statistics` [2][num_columns], of this tile of rows.
  ADDERTRAIN_DEVICE void write(float* tile_statistics, int tile_column, int num_columns, int num_threads) const {
    for (int i = threadIdx.x; i < 2 * kColumns; i += num_threads) {
      const int part = i / kColumns, column = i % kColumns;
      if (tile_column + column >= num_columns) continue;
      float total = 0.0f;
      for (int slot = 0; slot < kSlots; ++slot) total += shared[(part * kSlots + slot) * kColumns + column];
      tile_statistics[part * num_columns + tile_column + column] = total;
    }
  }
};

}  // namespace addertrain
