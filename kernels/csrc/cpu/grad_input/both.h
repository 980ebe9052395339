// Both gradients of a layer behind a ReLU in one walk over lists, for one instruction set (a `Simd` is in scope).
//
//   dX[n,c,h,v] = sum dY HT(W - X),  dW[o,c,r,s] = sum dY X
//
// A task computes a range of the channels of a range of the units, one unit after the other, and adds dY X to its
// channels of the sums of these units, which are called a part. `merge_both` adds the parts in their order. The number of
// parts depends on the sizes alone, so that the number of threads changes no bit.
#pragma once

#include "csrc/cpu/grad_input/units.h"

namespace addertrain::cpu {
namespace {

// How the work is divided. A layer with few filters has a part for each of many tasks. Where the filters are many, so
// many parts would take more memory than the layer itself: then several tasks share a part, each with its own channels,
// and each prepares the units for itself.
struct BothTasks {
  int64_t parts, ranges;  // of the units, of the channels
  int64_t units_of_part, blocks_of_range;

  explicit BothTasks(const DenseGradInputCall& call) {
    constexpr int64_t kTasks = 32, kSums = 1024 * 1024;
    const int64_t units = cut_grad_input(call.layer).count(), blocks = ceil_div(call.layer.C, Simd::kLanes);
    const int64_t of_memory = std::max<int64_t>(1, kSums / PackedLists::floats(call.layer));
    units_of_part = ceil_div(units, std::min({units, kTasks, of_memory}));
    parts = ceil_div(units, units_of_part);
    // dX in planes is written for all channels of a unit at a time.
    const int64_t most_ranges = call.x.layout == Layout::kNhwc ? ceil_div(kTasks, parts) : 1;
    blocks_of_range = ceil_div(blocks, std::min(blocks, most_ranges));
    ranges = ceil_div(blocks, blocks_of_range);
  }
};

inline int64_t both_num_tasks(const DenseGradInputCall& call) {
  const BothTasks tasks(call);
  return tasks.parts * tasks.ranges;
}

inline int64_t sums_of_part(const Layer& d) { return d.C * PackedLists(d, nullptr).channel_floats; }
inline int64_t both_sums_floats(const DenseGradInputCall& call) {
  return BothTasks(call).parts * sums_of_part(call.layer);
}

inline void compute_both(const DenseGradInputCall& call, const float* packed, int64_t task_begin, int64_t task_end,
                         float* sums) {
  const Layer& d = call.layer;
  const BothTasks tasks(call);
  const Cut cut = cut_grad_input(d);
  const int64_t channel_floats = PackedLists(d, nullptr).channel_floats;
  for (int64_t task = task_begin; task < task_end; ++task) {
    const int64_t part = task / tasks.ranges, channels = tasks.blocks_of_range * Simd::kLanes;
    const int64_t begin = task % tasks.ranges * channels, end = std::min(d.C, begin + channels);
    float* dw = sums + part * sums_of_part(d);
    std::memset(dw + begin * channel_floats, 0, sizeof(float) * (end - begin) * channel_floats);
    const int64_t unit_end = std::min(cut.count(), (part + 1) * tasks.units_of_part);
    for (int64_t i = part * tasks.units_of_part; i < unit_end; ++i)
      compute_grad_input_unit(call, packed, Unit(cut, i), {begin, end, dw});
  }
}

// Adds up all parts' sums of a channel, a tap and a register of filters.
struct SumsOfParts {
  const float* sums;
  int64_t parts, part_floats;
  PackedLists packed;

  SumsOfParts(const DenseGradInputCall& call, const float* sums_)
      : sums(sums_),
        parts(BothTasks(call).parts),
        part_floats(sums_of_part(call.layer)),
        packed(call.layer, nullptr) {}
  Simd::Reg at(int64_t c, int64_t rank, int64_t o) const {
    const float* from = sums + c * packed.channel_floats + packed.offset(rank, o);
    Simd::Reg sum = Simd::load(from);
    for (int64_t part = 1; part < parts; ++part) sum = Simd::add(sum, Simd::load(from + part * part_floats));
    return sum;
  }
};

// Writes dW of a block of channels, a register's worth, in the order of w.
inline void merge_both(const DenseGradInputCall& call, const float* sums, int64_t block, float* dw) {
  const Layer& d = call.layer;
  const SumsOfParts of(call, sums);
  const int64_t c0 = block * Simd::kLanes, taps = of.packed.taps, K = taps * d.C;
  const int channels = lanes_left(d.C, c0);
  int64_t* ranks = ranks_of_taps.entries(taps);
  for_ranked_taps(d, [&](int64_t r, int64_t s, int64_t rank) { ranks[r * d.S + s] = rank; });
  for (int64_t o0 = 0; o0 < d.O; o0 += Simd::kLanes) {
    const int filters = lanes_left(d.O, o0);
    float* first = dw + o0 * K;
    if (call.w_order == FilterOrder::kChannelsOutermost)
      for (int64_t c = c0; c < c0 + channels; ++c)
        store_transposed(first + c * taps, K, filters, taps, [&](int64_t tap) { return of.at(c, ranks[tap], o0); });
    else
      for (int64_t tap = 0; tap < taps; ++tap)
        store_transposed(first + tap * d.C + c0, K, filters, channels,
                         [&](int64_t c) { return of.at(c0 + c, ranks[tap], o0); });
  }
}

constexpr BothGradients kBothGradients{both_num_tasks, both_sums_floats, compute_both, merge_both};

}  // namespace
}  // namespace addertrain::cpu
