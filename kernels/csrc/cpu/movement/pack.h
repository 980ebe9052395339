// Reads filters a register at a time for packing, and writes gradients of filters, for one instruction set (a `Simd` is
// in scope).
//
// Filters are dense, as w_ocrs or with their channels innermost (w_orsc, channels-last). Packing puts a register of
// filters or channels side by side, which mostly lie far apart: they are loaded as they lie and transposed in registers.
#pragma once

#include <algorithm>

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/units.h"

namespace addertrain::cpu {
namespace {

// How many of a register's lanes are filled, of `total` from `first` on.
inline int lanes_left(int64_t total, int64_t first) {
  return static_cast<int>(std::clamp<int64_t>(total - first, 0, Simd::kLanes));
}

// v[i] = from[i + lane * pitch] over the first `lanes` lanes, the others 0; for i < count <= kLanes.
inline void load_transposed(const float* from, int64_t pitch, int lanes, int count, Simd::Reg (&v)[Simd::kLanes]) {
  for (int lane = 0; lane < Simd::kLanes; ++lane)
    v[lane] = lane >= lanes           ? Simd::zero()
              : count < Simd::kLanes ? Simd::load_first(from + lane * pitch, count)
                                     : Simd::load(from + lane * pitch);
  Simd::transpose(v);
}

// Calls use(i, register) for `count` registers as in load_transposed.
template <typename Use>
inline void for_transposed(const float* from, int64_t pitch, int lanes, int64_t count, const Use& use) {
  for (int64_t i0 = 0; i0 < count; i0 += Simd::kLanes) {
    const int now = lanes_left(count, i0);
    Simd::Reg v[Simd::kLanes];
    load_transposed(from + i0, pitch, lanes, now, v);
    for (int i = 0; i < now; ++i) use(i0 + i, v[i]);
  }
}

// The inverse: for each lane stores `count` floats at `to + lane * pitch`, of which number i is that lane of value(i).
template <typename Value>
inline void store_transposed(float* to, int64_t pitch, int lanes, int64_t count, const Value& value) {
  for (int64_t i0 = 0; i0 < count; i0 += Simd::kLanes) {
    const int now = lanes_left(count, i0);
    Simd::Reg v[Simd::kLanes];
    for (int i = 0; i < Simd::kLanes; ++i) v[i] = i < now ? value(i0 + i) : Simd::zero();
    Simd::transpose(v);
    for (int lane = 0; lane < lanes; ++lane)
      if (now == Simd::kLanes)
        Simd::store(to + lane * pitch + i0, v[lane]);
      else
        Simd::store_first(to + lane * pitch + i0, v[lane], now);
  }
}

// A tap of a filter; `advance` steps to the next one in memory.
struct FilterTap {
  int64_t c, r, s;

  void advance(const Layer& d, FilterOrder order) {
    if (order == FilterOrder::kChannelsInnermost && ++c < d.C) return;
    if (order == FilterOrder::kChannelsInnermost) c = 0;
    if (++s < d.S) return;
    s = 0;
    if (++r < d.R || order == FilterOrder::kChannelsInnermost) return;
    r = 0, ++c;
  }
};

// Where a tap lies in its filter.
inline int64_t offset_of(const FilterTap& tap, const Layer& d, FilterOrder order) {
  return order == FilterOrder::kChannelsInnermost ? (tap.r * d.S + tap.s) * d.C + tap.c
                                                  : (tap.c * d.R + tap.r) * d.S + tap.s;
}

}  // namespace
}  // namespace addertrain::cpu
