// Global to shared memory for the tensor cores' kernel: rows of 32 steps (64 bytes), 16 bytes a copy, as they lie.
#pragma once

#include "device/gather.h"
#include "device/pairs.h"
#include "device/tile.h"

namespace addertrain {

// A block computes BM positions x BN columns, a warp WM x WN of them. Eight rows of a slab are 512 contiguous bytes of
// shared memory: reads of them have no bank conflicts, without padding.
template <int BM_, int BN_, int WM_, int WN_, int kStages_, int kMinBlocks_>
struct PairTile {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_;
  static constexpr int kStages = kStages_, kMinBlocks = kMinBlocks_;
  static constexpr int kSlab = 32, kChunk = 8, kChunks = kSlab / kChunk;  // steps of a slab, of a copy; copies of a row
  static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN, kThreads = kWarpsM * kWarpsN * 32;
  static constexpr int kStageElements = (BM + BN) * kSlab;
  static constexpr int kSharedBytes = max_of(kStages * kStageElements * 2, StagedTile<BM, BN, kThreads>::kBytes);
  static_assert(WM % 8 == 0 && WN % 16 == 0);
};

// A. kVector: eight neighbouring channels share an address and a predicate (channels-last, C % 8 == 0, aligned).
// Otherwise, for any strides and any C, a thread owns positions and collects their elements one by one.
template <class P, bool kVector>
struct PairPositionLoader {
  static constexpr int kCols = kVector || P::kThreads >= P::kChunks * P::BM ? P::kChunks
                               : P::kThreads > P::BM                        ? P::kThreads / P::BM
                                                                            : 1;
  static constexpr int kRowStep = P::kThreads / kCols, kRows = (P::BM + kRowStep - 1) / kRowStep;
  static constexpr int kWidth = P::kSlab / kCols;  // consecutive steps of a row
  static_assert(P::BM % kRowStep == 0 && kWidth % P::kChunk == 0);

  GatheredRows<uint16_t, kRows, kRowStep> rows;
  Tap tap;
  int column, first_row;

  ADDERTRAIN_DEVICE void init(const Problem& p, const Phase& phase, const uint16_t* source, int tile_row,
                              int first_step) {
    // Lanes run along channels where these lie side by side, along positions where those may.
    column = (kVector ? threadIdx.x % kCols : threadIdx.x / kRowStep) * kWidth;
    first_row = kVector ? threadIdx.x / kCols : threadIdx.x % kRowStep;
    rows.init(p, phase, source, tile_row, first_row, P::BM);
    tap.init(p, phase, first_step + column);
  }
  ADDERTRAIN_DEVICE void load(const Problem& p, const Phase& phase, uint16_t* tile) {
    uint16_t* to = tile + first_row * P::kSlab + column;
    if constexpr (kVector) {
      const int at = tap.offset(p, phase);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const bool is_inside = tap.is_inside(phase, rows.mask[i]);
        copy_async16(to + i * kRowStep * P::kSlab, rows.base + (is_inside ? rows.offset[i] + at : 0), is_inside);
      }
      tap.advance(p, phase, P::kSlab);
    } else {
#pragma unroll
      for (int chunk = 0; chunk < kWidth; chunk += P::kChunk) {
        Words4 collected[kRows];
        collect(p, phase, collected);
#pragma unroll
        for (int i = 0; i < kRows; ++i) store_vector(to + i * kRowStep * P::kSlab + chunk, collected[i]);
      }
      tap.advance(p, phase, P::kSlab - kWidth);
    }
  }
  ADDERTRAIN_DEVICE void collect(const Problem& p, const Phase& phase, Words4 (&collected)[kRows]) {
#pragma unroll
    for (int q = 0; q < P::kChunk; ++q) {
      const int at = tap.offset(p, phase);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const uint32_t bits = tap.is_inside(phase, rows.mask[i]) ? rows.base[rows.offset[i] + at] : 0u;
        uint32_t& word = collected[i].v[q / 2];
        word = q % 2 == 0 ? bits : word | bits << 16;
      }
      tap.advance(p, phase, 1);
    }
  }
};

// B: packed [column][steps] with zeros past the last step; columns past the last are zero-filled here.
template <class P>
struct PairFilterLoader {
  static constexpr int kStep = P::kThreads / P::kChunks, kRows = (P::BN + kStep - 1) / kStep;

  const uint16_t* source;
  int first_row, chunk, columns_left, steps;

  ADDERTRAIN_DEVICE void init(const uint16_t* packed, int packed_steps, int tile_column, int columns, int slab_step) {
    chunk = threadIdx.x % P::kChunks * P::kChunk, first_row = threadIdx.x / P::kChunks;
    columns_left = columns - tile_column, steps = packed_steps;
    source = packed + static_cast<int64_t>(tile_column) * steps + slab_step + chunk;
  }
  ADDERTRAIN_DEVICE void load(uint16_t* tile) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = first_row + i * kStep;
      if (P::BN % kStep != 0 && row >= P::BN) break;
      const bool is_column = row < columns_left;
      const uint16_t* from = source + (is_column ? static_cast<int64_t>(row) * steps : 0);
      copy_async16(tile + row * P::kSlab + chunk, from, is_column);
    }
    source += P::kSlab;
  }
};

}  // namespace addertrain
