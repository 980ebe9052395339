// From sums to results. A block's sums go through shared memory once, so that they leave 16 bytes a thread with all
// that is done to them on the way, and so that statistics are taken column by column.
#pragma once

#include "device/gather.h"
#include "device/params.h"

namespace addertrain {

// Element of an image at row m.
ADDERTRAIN_DEVICE int64_t output_offset(const Phase& phase, const ImageStrides& strides, int m) {
  const Position at(phase, m);
  const int64_t h = at.i * phase.v.out_step + phase.v.out_offset, w = at.j * phase.h.out_step + phase.h.out_offset;
  return at.image * strides.n + h * strides.h + w * strides.w;
}
ADDERTRAIN_DEVICE int64_t output_offset(const Phase& phase, const ImageStrides& strides, const Access& access,
                                        int columns, int m) {
  return access.is_dense ? static_cast<int64_t>(m) * columns : output_offset(phase, strides, m);
}

template <class Out>
ADDERTRAIN_DEVICE Out evaluate(const Epilogue<Out>& e, float response, int n, int64_t at) {
  float y = response;
  if (e.scale) y = fmaf(y, e.scale[n], e.shift[n]);
  if (e.residual) y += to_float(e.residual[at]);
  if (e.relu) y = y < 0.0f ? 0.0f : y;  // a NaN stays
  return from_float<Out>(y);
}

// Sum and centred sum of squares of what a thread sees of a channel, in two passes: however far the channel's mean is
// from 0, nothing large is subtracted from anything large. `term` is what each value lacks.
struct Moments {
  float term, sum = 0.0f, squares = 0.0f, mean = 0.0f;
  int count = 0;

  ADDERTRAIN_DEVICE explicit Moments(float term) : term(term) {}
  ADDERTRAIN_DEVICE void add(float v) { sum += v + term, ++count; }
  ADDERTRAIN_DEVICE void centre() { mean = count > 0 ? sum / static_cast<float>(count) - term : 0.0f; }
  ADDERTRAIN_DEVICE void add_square(float v) { squares = fmaf(v - mean, v - mean, squares); }
  ADDERTRAIN_DEVICE void store(float* statistics, int part, int columns, int n) const {
    float* to = statistics + int64_t{2} * part * columns + n;
    to[0] = sum, to[columns] = squares;
  }
};

struct alignas(16) Floats4 {
  float v[4];
};
template <class Out>
struct alignas(16) OutVector {
  static constexpr int kSize = 16 / sizeof(Out);
  Out v[kSize];
};

// A block's BM x BN sums in shared memory. The pitch lets the lanes of both kernels write to different banks.
template <int BM, int BN, int kThreads>
struct StagedTile {
  static constexpr int kPitch = BN + 4;
  static constexpr int kBytes = BM * kPitch * 4;
  static constexpr int kSlots = kThreads / BN;  // threads that share a column's statistics
  static_assert(kThreads % BN == 0);

  float* sums;

  ADDERTRAIN_DEVICE float& at(int row, int column) const { return sums[row * kPitch + column]; }

  // After a barrier; every thread of the block.
  template <class Word, class Out>
  ADDERTRAIN_DEVICE void write(const ContractParams<Word, Out>& p, const Phase& phase, int tile_m, int tile_n) const {
    if (p.epilogue.partial) return write_partial(p, phase, tile_m, tile_n);  // the second pass does the rest
    if (p.out_access.is_vector)
      write_vectors(p, phase, tile_m, tile_n);
    else
      write_elements(p, phase, tile_m, tile_n);
    if (p.epilogue.statistics) write_statistics(p, phase, tile_m, tile_n);
  }

 private:
  template <class Word, class Out>
  ADDERTRAIN_DEVICE void write_partial(const ContractParams<Word, Out>& p, const Phase& phase, int tile_m,
                                       int tile_n) const {
    const int64_t columns = p.problem.columns, row_of = columns * p.problem.out_w;
    const ImageStrides dense{row_of * p.problem.out_h, 1, row_of, columns};
    float* slice = p.epilogue.partial + blockIdx.y * p.split_size;
    const int column = threadIdx.x % BN;
    if (tile_n + column >= columns) return;
    for (int row = threadIdx.x / BN; row < BM && tile_m + row < phase.rows(p.problem); row += kThreads / BN)
      slice[output_offset(phase, dense, tile_m + row) + tile_n + column] = at(row, column);
  }

  // Channels-last: a thread keeps its columns and goes down the rows.
  template <class Word, class Out>
  ADDERTRAIN_DEVICE void write_vectors(const ContractParams<Word, Out>& p, const Phase& phase, int tile_m,
                                       int tile_n) const {
    constexpr int kSize = OutVector<Out>::kSize, kVectors = BN / kSize, kStep = kThreads / kVectors;
    const int column = threadIdx.x % kVectors * kSize, n = tile_n + column;
    if (n >= p.problem.columns) return;
    const auto& e = p.epilogue;
    float terms[kSize], scale[kSize], shift[kSize];
#pragma unroll
    for (int q = 0; q < kSize; ++q) {
      terms[q] = e.column[n + q];
      scale[q] = e.scale ? e.scale[n + q] : 1.0f, shift[q] = e.scale ? e.shift[n + q] : 0.0f;
    }
    const float least = e.relu ? 0.0f : -INFINITY;
    const bool is_plain = !e.scale && !e.residual && !e.relu;  // training: a third of the instructions
    const int rows = min(phase.rows(p.problem) - tile_m, BM);
    for (int row = threadIdx.x / kVectors; row < rows; row += kStep) {
      const int64_t to = output_offset(phase, p.problem.out, p.out_access, p.problem.columns, tile_m + row) + n;
      float v[kSize];
#pragma unroll
      for (int q = 0; q < kSize; q += 4) {
        const auto four = load_vector<Floats4>(&at(row, column + q));
#pragma unroll
        for (int i = 0; i < 4; ++i) v[q + i] = four.v[i] + terms[q + i];
      }
      if (!is_plain) {
        OutVector<Out> residual{};
        if (e.residual) residual = load_vector<OutVector<Out>>(e.residual + to);
#pragma unroll
        for (int q = 0; q < kSize; ++q) {
          v[q] = fmaf(v[q], scale[q], shift[q]) + to_float(residual.v[q]);
          v[q] = v[q] < least ? least : v[q];  // a NaN stays
        }
      }
      OutVector<Out> y;
#pragma unroll
      for (int q = 0; q < kSize; ++q) y.v[q] = from_float<Out>(v[q]);
      store_vector(p.out + to, y);
    }
  }

  // Any layout: a thread keeps its rows, which lie side by side in NCHW, and goes along the columns.
  template <class Word, class Out>
  ADDERTRAIN_DEVICE void write_elements(const ContractParams<Word, Out>& p, const Phase& phase, int tile_m,
                                        int tile_n) const {
    constexpr int kRows = kThreads < BM ? kThreads : BM, kStep = kThreads / kRows;
    const int columns = min(p.problem.columns - tile_n, BN);
    for (int row = threadIdx.x % kRows; row < BM && tile_m + row < phase.rows(p.problem); row += kRows) {
      const int64_t first = output_offset(phase, p.problem.out, tile_m + row);
      for (int column = threadIdx.x / kRows; column < columns; column += kStep) {
        const int n = tile_n + column;
        const int64_t to = first + n * p.problem.out.c;
        p.out[to] = evaluate(p.epilogue, at(row, column) + p.epilogue.column[n], n, to);
      }
    }
  }

  template <class Word, class Out>
  ADDERTRAIN_DEVICE void write_statistics(const ContractParams<Word, Out>& p, const Phase& phase, int tile_m,
                                          int tile_n) const {
    const int column = threadIdx.x % BN, slot = threadIdx.x / BN, n = tile_n + column;
    if (n >= p.problem.columns) return;
    const int rows = min(phase.rows(p.problem) - tile_m, BM);
    Moments moments(p.epilogue.column[n]);
    for (int row = slot; row < rows; row += kSlots) moments.add(at(row, column));
    moments.centre();
    for (int row = slot; row < rows; row += kSlots) moments.add_square(at(row, column));
    moments.store(p.epilogue.statistics, tile_m / BM * kSlots + slot, p.problem.columns, n);
  }
};

}  // namespace addertrain
