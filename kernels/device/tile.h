// Tile sizes of the word kernel (contract.h), and which outputs a thread of a block owns.
#pragma once

#include "device/epilogue.h"

namespace addertrain {

constexpr int max_of(int a, int b) { return a > b ? a : b; }

// A block computes BM positions x BN columns, a thread TM x TN of them, in slabs of BK words of k.
template <int BM_, int BN_, int BK_, int TM_, int TN_, int kStages_, int kMinBlocks_>
struct WordTile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
  static constexpr int kStages = kStages_;        // slabs in flight
  static constexpr int kMinBlocks = kMinBlocks_;  // on a multiprocessor: bounds the registers
  static constexpr int kSlab = BK;                // steps of k in a slab
  static constexpr int kRowThreads = BM / TM, kColThreads = BN / TN, kThreads = kRowThreads * kColThreads;
  static constexpr int kColLanes = kColThreads < 8 ? kColThreads : 8;  // a warp: (32 / kColLanes) x kColLanes threads
  static constexpr int kWarpCols = kColThreads / kColLanes;
  static constexpr int kPitchA = BM + 4;  // words: the transposing stores of the gather meet in pairs at most
  static constexpr int kPitchB = BN;
  static constexpr int kStageWords = BK * (kPitchA + kPitchB);
  static constexpr int kSharedBytes = max_of(kStages * kStageWords * 4, StagedTile<BM, BN, kThreads>::kBytes);
  static_assert(kThreads % 32 == 0 && BK % 4 == 0 && TM % 4 == 0 && TN % 4 == 0);
};

// Outputs lie in runs of four rows and four columns, so that both operands come 16 bytes at a time.
template <class P>
struct ThreadPlace {
  int tx, ty;

  ADDERTRAIN_DEVICE ThreadPlace() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    tx = warp % P::kWarpCols * P::kColLanes + lane % P::kColLanes;
    ty = warp / P::kWarpCols * (32 / P::kColLanes) + lane / P::kColLanes;
  }
  ADDERTRAIN_DEVICE int row(int i) const { return ty * 4 + i % 4 + i / 4 * 4 * P::kRowThreads; }
  ADDERTRAIN_DEVICE int column(int j) const { return tx * 4 + j % 4 + j / 4 * 4 * P::kColThreads; }
};

}  // namespace addertrain
