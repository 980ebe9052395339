// The plain sum for responses that would lose digits by the identity, for one instruction set (a `Simd` is in scope).
//
// 2 sum min(x, w) - sum x - sum w (forward/tiles.h) rounds what is as large as A = sum |x| + sum |w|, the sum of |x - w|
// itself only what is as large as R = sum |x - w|. As sum |x| <= sum |w| + R,
//
//   R >= kFewDigits * sum |w|   means   A <= (2 / kFewDigits + 1) R
//
// and the identity's error bound, (K + 2) u (2 A + R), is at most 35 times that of the plain sum. Where R is smaller, x
// and w lie close together and far from 0, and the plain sum is taken instead. R is taken from the identity, whose error
// does not matter to this comparison while K u < 1 / 300. The rule reads one output, its filter and no other image.
//
// The rule costs nothing where a filter cannot lose digits for any input of a unit: with x >= lowest throughout,
// R >= sum max(lowest - w, 0), which behind a ReLU is the sum of a filter's negative weights.
#pragma once

#include "csrc/cpu/forward/tiles.h"

namespace addertrain::cpu {
namespace {

// Whether a filter of a block can lose digits for some x >= lowest; lowest <= 0.
inline bool can_lose_digits(const PackedForward& packed, int64_t lane0, int64_t width, float lowest) {
  Simd::Reg room = Simd::zero();
  for (int64_t lane = 0; lane < width; lane += Simd::kLanes) {
    Simd::Reg outside = Simd::load(packed.below_zero + lane0 + lane);
    if (lowest < 0.0f) {
      outside = Simd::zero();
      const float* w = packed.filters + lane0 * packed.K + lane;
      for (int64_t k = 0; k < packed.K; ++k, w += width)
        outside = Simd::add(outside, Simd::max(Simd::scale_add(-1.0f, Simd::load(w), Simd::broadcast(lowest)), Simd::zero()));
    }
    room = Simd::max(Simd::scale_add(-1.0f, outside, Simd::load(packed.limit + lane0 + lane)), room);
  }
  return Simd::sum(room) > 0.0f;
}

// How far a response lies beyond the limit up to which the identity keeps its digits. A NaN compares false and so does
// not count as lost.
inline Simd::Reg beyond(const PackedForward& packed, int64_t lane, Simd::Reg y) {
  const Simd::Reg most = Simd::scale_add(-1.0f, Simd::load(packed.limit + lane), Simd::load(packed.offset + lane));
  return Simd::scale_add(-1.0f, most, y);
}

// Whether any response of a register of filters has lost digits. `y` holds the first position's, and those of the others
// lie `pitch` floats apart.
inline bool has_lost_digits(const PackedForward& packed, int64_t lane, int filters, const float* y, int64_t positions,
                            int64_t pitch) {
  Simd::Reg most = Simd::zero();
  for (int64_t i = 0; i < positions; ++i)
    most = Simd::max(beyond(packed, lane, Simd::load_first(y + i * pitch, filters)), most);
  return Simd::sum(most) > 0.0f;
}

// sum |x - w| of M positions and a register of filters, whose taps lie `pitch` floats apart. Each run has a chain of
// additions of its own.
template <int M>
void add_distances(const Layer& d, const Walk& walk, const int64_t* runs, const float* w, int64_t pitch,
                   const float* const* x, Simd::Reg (&sums)[M]) {
  const int64_t across = walk.is_sliding ? d.S : 1;
  for (int m = 0; m < M; ++m) sums[m] = Simd::zero();
  for (int64_t run = 0; run < walk.num_runs; ++run) {
    Simd::Reg acc[M];
    for (int m = 0; m < M; ++m) acc[m] = Simd::zero();
    for (int64_t c = 0; c < walk.run_length; ++c)
      for (int64_t s = 0; s < across; ++s, w += pitch) {
        const Simd::Reg filter = Simd::load(w);
        for (int m = 0; m < M; ++m) {
          const Simd::Reg pixel = Simd::broadcast_at(x[m] + runs[run] + c + s * d.C);
          acc[m] = Simd::add(acc[m], Simd::scale_add(-1.0f, Simd::min(pixel, filter), Simd::max(pixel, filter)));
        }
      }
    for (int m = 0; m < M; ++m) sums[m] = Simd::add(sums[m], acc[m]);
  }
}

// Writes the plain sum to every response of a register of filters that has lost digits.
inline void restore_digits(const Layer& d, const Walk& walk, const PackedForward& packed, const int64_t* runs,
                           const float* w, int64_t width, int64_t lane, int filters, const float* const* at,
                           int64_t positions, float* y) {
  constexpr int kTogether = 4;  // as many chains of additions hide each other's latency
  for (int64_t i = 0; i < positions; i += kTogether) {
    const int64_t count = std::min<int64_t>(kTogether, positions - i);
    if (!has_lost_digits(packed, lane, filters, y + i * d.O, count, d.O)) continue;
    Simd::Reg sums[kTogether];
    add_distances<kTogether>(d, walk, runs, w, width, at + i, sums);  // `at` is longer than `positions`
    for (int64_t m = 0; m < count; ++m) {
      float* response = y + (i + m) * d.O;
      float lost[Simd::kLanes], exact[Simd::kLanes];
      Simd::store(lost, beyond(packed, lane, Simd::load_first(response, filters)));
      Simd::store(exact, Simd::scale_add(-1.0f, sums[m], Simd::load(packed.offset + lane)));
      for (int f = 0; f < filters; ++f)
        if (lost[f] > 0.0f) response[f] = exact[f];
    }
  }
}

}  // namespace
}  // namespace addertrain::cpu
