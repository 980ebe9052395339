// Global to shared memory for the word kernel: asynchronous copies, both tiles with k outside: a[k][row], b[k][column].
#pragma once

#include "device/gather.h"
#include "device/tile.h"

namespace addertrain {

// A, transposed on its way by copies of one word. kVector: four neighbouring channels share an address and a predicate
// (channels-last, C % 4 == 0). Otherwise, for any strides and any C, a thread owns positions and walks along k.
template <class P, class Word, bool kVector>
struct PositionLoader {
  static constexpr int kCols = kVector ? P::BK / 4 : P::kThreads > P::BM ? P::kThreads / P::BM : 1;
  static constexpr int kRowStep = P::kThreads / kCols;  // threads along the rows
  static constexpr int kRows = (P::BM + kRowStep - 1) / kRowStep;
  static constexpr int kWidth = P::BK / kCols;          // consecutive steps of a row
  static_assert(kWidth * kCols == P::BK && kRowStep * kCols == P::kThreads && (kVector || P::BM % kRowStep == 0));

  GatheredRows<Word, kRows, kRowStep> rows;
  Tap tap;
  int column, first_row;

  ADDERTRAIN_DEVICE void init(const Problem& p, const Phase& phase, const Word* source, int tile_row, int first_step) {
    // Lanes run along channels where these lie side by side, along positions where those may.
    column = (kVector ? threadIdx.x % kCols : threadIdx.x / kRowStep) * kWidth;
    first_row = kVector ? threadIdx.x / kCols : threadIdx.x % kRowStep;
    rows.init(p, phase, source, tile_row, first_row, P::BM);
    tap.init(p, phase, first_step + column);
  }
  ADDERTRAIN_DEVICE void load(const Problem& p, const Phase& phase, Word* tile) {
    Word* to = tile + column * P::kPitchA + first_row;
    if constexpr (kVector) {
      const int at = tap.offset(p, phase);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (P::BM % kRowStep != 0 && first_row + i * kRowStep >= P::BM) break;
        const bool is_inside = tap.is_inside(phase, rows.mask[i]);
        const Word* from = rows.base + (is_inside ? rows.offset[i] + at : 0);
#pragma unroll
        for (int q = 0; q < kWidth; ++q) copy_async4(to + q * P::kPitchA + i * kRowStep, from + q, is_inside);
      }
      tap.advance(p, phase, P::BK);
    } else {
#pragma unroll
      for (int q = 0; q < kWidth; ++q) {
        const int at = tap.offset(p, phase);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          const bool is_inside = tap.is_inside(phase, rows.mask[i]);
          copy_async4(to + q * P::kPitchA + i * kRowStep, rows.base + (is_inside ? rows.offset[i] + at : 0), is_inside);
        }
        tap.advance(p, phase, 1);
      }
      tap.advance(p, phase, P::BK - kWidth);
    }
  }
};

// B: packed [steps][pitch] with zeros in both tails: steps a multiple of BK, pitch of 4.
template <class P, class Word>
struct FilterLoader {
  static constexpr int kCols = P::BN / 4, kStep = P::kThreads / kCols;
  static constexpr int kCopies = (P::BK + kStep - 1) / kStep;
  static_assert(P::kThreads % kCols == 0);

  const Word* source;
  int pitch, first_step, column;
  bool is_column;

  ADDERTRAIN_DEVICE void init(const Word* packed, int packed_pitch, int tile_column, int slab_step) {
    column = threadIdx.x % kCols * 4, first_step = threadIdx.x / kCols;
    pitch = packed_pitch;
    is_column = tile_column + column < pitch;
    source = packed + static_cast<int64_t>(slab_step + first_step) * pitch + (is_column ? tile_column + column : 0);
  }
  ADDERTRAIN_DEVICE void load(Word* tile) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (P::BK % kStep != 0 && first_step + i * kStep >= P::BK) break;
      copy_async16(tile + (first_step + i * kStep) * P::kPitchB + column,
                   source + static_cast<int64_t>(i) * kStep * pitch, is_column);
    }
    source += static_cast<int64_t>(P::BK) * pitch;
  }
};

}  // namespace addertrain
