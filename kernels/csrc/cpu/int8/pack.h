// How a layer of bytes is divided, and its filters in the order in which tiles read them. A file of instruction_sets/
// defines `Bytes` (int8/passes.h) before it includes this.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "csrc/cpu/int8/tiles.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kBlockFilters = Bytes::kRegisters * Bytes::kLanes;  // one tile's filters
constexpr int kMostPositions = Bytes::positions(1);
constexpr int64_t kRegisterBytes = sizeof(Bytes::Register);
static_assert(kUnitFilters % kBlockFilters == 0 && kRegisterBytes == Bytes::kLanes * Bytes::kDepth);

// A patch is a run of C bytes for each tap. Where C is no multiple of the depth, patches are gathered, and each is one
// run, padded with zeros in both operands: |0 - 0| = 0.
struct Runs {
  int64_t taps, length;
  bool are_gathered;

  explicit Runs(const Layer& d) : taps(d.R * d.S), length(d.C), are_gathered(d.C % Bytes::kDepth != 0) {
    if (are_gathered) length = parts(taps * length, Bytes::kDepth) * Bytes::kDepth, taps = 1;
  }
  int64_t bytes() const { return taps * length; }
};

// [a number of 4 bytes for each lane: where its sums start][block][step of kDepth channels][register][lane][kDepth].
struct PackedFilters {
  int64_t start_bytes, run_bytes;

  explicit PackedFilters(const Layer& d)
      : start_bytes(parts(parts(d.O, Bytes::kLanes) * Bytes::kLanes * 4, 64) * 64), run_bytes(Runs(d).bytes()) {}
  // A block lies behind those before it, and only the last one may have fewer registers.
  int64_t offset_of(int64_t filter) const { return start_bytes + filter * run_bytes; }
  static int registers_from(const Layer& d, int64_t filter) {
    return static_cast<int>(std::min<int64_t>(Bytes::kRegisters, parts(d.O - filter, Bytes::kLanes)));
  }
};

int64_t packed_bytes(const Layer& d) {
  return PackedFilters(d).offset_of(parts(d.O, Bytes::kLanes) * Bytes::kLanes);
}

int64_t num_blocks(const Layer& d) { return parts(d.O, kBlockFilters); }

// One filter in the order of a patch, channels innermost.
void order_taps(const Layer& d, const uint8_t* w, const ImageStrides& strides, uint8_t* row) {
  for (int64_t r = 0; r < d.R; ++r)
    for (int64_t s = 0; s < d.S; ++s, row += d.C) {
      const uint8_t* from = w + r * strides.h + s * strides.w;
      if (strides.c == 1) std::memcpy(row, from, d.C);
      else
        for (int64_t c = 0; c < d.C; ++c) row[c] = from[c * strides.c];
    }
}

void pack(const Layer& d, const uint8_t* w, const ImageStrides& strides, int64_t block_begin, int64_t block_end,
          uint8_t* packed) {
  const PackedFilters lies(d);
  const auto row = std::make_unique<uint8_t[]>(lies.run_bytes);  // zeros behind the patch
  auto* starts = reinterpret_cast<int32_t*>(packed);
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int64_t first = block * kBlockFilters;
    const int registers = PackedFilters::registers_from(d, first);
    uint8_t* panel = packed + lies.offset_of(first);
    for (int64_t lane = 0; lane < registers * Bytes::kLanes; ++lane) {
      const int64_t o = first + lane;
      if (o < d.O) order_taps(d, w + o * strides.n, strides, row.get());
      else std::memset(row.get(), 0, lies.run_bytes);
      int32_t sum = 0;
      for (int64_t k = 0; k < lies.run_bytes; ++k) sum += row[k];
      starts[o] = Bytes::kAddsMaxima ? -sum : 0;
      for (int64_t step = 0; step < lies.run_bytes / Bytes::kDepth; ++step)
        std::memcpy(panel + step * registers * kRegisterBytes + lane * Bytes::kDepth, &row[step * Bytes::kDepth],
                    Bytes::kDepth);
    }
  }
}

}  // namespace
}  // namespace addertrain::cpu
