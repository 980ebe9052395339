// Gradients where x is not 0, for one instruction set (a `Simd` is in scope).
//
// A ReLU drops the input gradient of its zeros, so that half of them need not be computed. Filters lie along the
// registers; a tile takes a few non-zeros of one channel, from anywhere in the unit, and the lanes are added up at its
// end. A zero adds nothing to the filter gradient either: the same walk can compute it, by one more multiplication for
// every register of dY that a tile has loaded anyway.
#pragma once

#include "csrc/cpu/grad_input/channel_lists.h"
#include "csrc/cpu/grad_input/thin.h"
#include "csrc/cpu/grad_input/tiles.h"

namespace addertrain::cpu {
namespace {

// Calls use(r, s, rank) for every tap in the order in which filters are packed: those that the positions of one phase of
// the stride may see lie side by side, so that a tile walks them in one stretch.
template <typename Use>
inline void for_ranked_taps(const Layer& d, const Use& use) {
  const auto are_seen_together = [](int64_t a, int64_t b, int64_t dilation, int64_t stride) {
    return (a - b) * dilation % stride == 0;
  };
  const auto is_first = [&](int64_t tap, int64_t dilation, int64_t stride) {
    for (int64_t before = 0; before < tap; ++before)
      if (are_seen_together(tap, before, dilation, stride)) return false;
    return true;
  };
  int64_t rank = 0;
  for (int64_t r0 = 0; r0 < d.R; ++r0)
    for (int64_t s0 = 0; s0 < d.S; ++s0) {
      if (!is_first(r0, d.dilation_h, d.stride_h) || !is_first(s0, d.dilation_w, d.stride_w)) continue;
      for (int64_t r = r0; r < d.R; ++r)
        for (int64_t s = s0; s < d.S; ++s)
          if (are_seen_together(r, r0, d.dilation_h, d.stride_h) && are_seen_together(s, s0, d.dilation_w, d.stride_w))
            use(r, s, rank++);
    }
}

// Packed filters: for each channel [tap by rank][full registers of filters], then [tap by rank][the register behind
// them, filled up with zeros]; behind all channels the poison of each.
struct PackedLists {
  int64_t whole, tail;  // filters in full registers, and in the one behind them
  int64_t taps, channel_floats;
  float* filters;
  float* poison;

  PackedLists(const Layer& d, float* packed) : tail(d.O % Simd::kLanes), taps(d.R * d.S) {
    whole = d.O - tail;
    channel_floats = taps * (whole + (tail > 0 ? Simd::kLanes : 0));
    filters = packed;
    poison = filters + d.C * channel_floats;
  }
  // Where a channel's packed filters hold the register of filters from o on.
  int64_t offset(int64_t rank, int64_t o) const {
    return o < whole ? rank * whole + o : taps * whole + rank * Simd::kLanes;
  }
  static int64_t floats(const Layer& d) { return d.C * (PackedLists(d, nullptr).channel_floats + 1); }
};

thread_local OffsetTable ranks_of_taps;

// Packs a block of channels, a register's worth.
inline void pack_lists(const DenseGradInputCall& call, int64_t block, float* packed) {
  const Layer& d = call.layer;
  const PackedLists to(d, packed);
  const int64_t c0 = block * Simd::kLanes, K = to.taps * d.C;
  const int channels = lanes_left(d.C, c0);
  int64_t* ranks = ranks_of_taps.entries(to.taps);
  for_ranked_taps(d, [&](int64_t r, int64_t s, int64_t rank) { ranks[r * d.S + s] = rank; });
  Simd::Reg poison[Simd::kLanes];
  for (Simd::Reg& lanes : poison) lanes = Simd::zero();
  for (int64_t o0 = 0; o0 < d.O; o0 += Simd::kLanes) {
    const int filters = lanes_left(d.O, o0);
    const auto put = [&](int64_t c, int64_t tap, Simd::Reg w) {
      Simd::store(to.filters + (c0 + c) * to.channel_floats + to.offset(ranks[tap], o0), w);
      poison[c] = Simd::keep_nan(poison[c], w);
    };
    const float* first = call.w + o0 * K;
    if (call.w_order == FilterOrder::kChannelsOutermost)
      for (int64_t c = 0; c < channels; ++c)
        for_transposed(first + (c0 + c) * to.taps, K, filters, to.taps,
                       [&](int64_t tap, Simd::Reg w) { put(c, tap, w); });
    else
      for (int64_t tap = 0; tap < to.taps; ++tap)
        for_transposed(first + tap * d.C + c0, K, filters, channels, [&](int64_t c, Simd::Reg w) { put(c, tap, w); });
  }
  for (int c = 0; c < channels; ++c) to.poison[c0 + c] = Simd::sum(poison[c]);
}

// Steps that follow each other and whose weights lie side by side in the channel's packed filters.
struct ListStretch {
  const int64_t* end;  // of the steps
  int64_t weights;     // offset of the first step's
};

// Where a segment's tiles find what they multiply. A step is a register of filters of a tap that the positions see. Each
// step has an offset of dY from a position's base; weights have one for each stretch, because one for each step would
// cost a fifth of the speed (docs/kernels.md). Full registers come first.
struct ListSteps {
  const int64_t* dy;
  const ListStretch* begin;
  const ListStretch* whole;
  const ListStretch* end;
  int tail;  // filters in the registers behind the full ones

  ListSteps(const Layer& d, const PhasePositions& phase, const Taps& taps, const PackedLists& packed,
            ListScratch& scratch)
      : tail(static_cast<int>(packed.tail)) {
    int64_t* step = scratch.steps.entries(packed.channel_floats / Simd::kLanes);
    ListStretch* stretch = scratch.stretches.entries(2 * packed.taps);
    dy = step, begin = stretch;
    const auto add = [&](int64_t first, int64_t last) {
      int64_t next = -1;
      if (first == last) return;
      for_ranked_taps(d, [&](int64_t r, int64_t s, int64_t rank) {
        if (!taps.has(r, s)) return;
        if (rank != next) *stretch++ = {step, packed.offset(rank, first)};
        for (int64_t o = first; o < last; o += Simd::kLanes) *step++ = phase.down[r] + phase.across[s] + o;
        stretch[-1].end = step;
        next = rank + 1;
      });
    };
    add(0, packed.whole);
    whole = stretch;
    add(packed.whole, d.O);
    end = stretch;
  }
};

// What the tiles of one channel and one segment share.
struct ListRun {
  const ListSteps& steps;
  const float* filters;  // of the channel
  const float* dy;
  float poison;
  float* dw;  // of the channel, as `filters`; not read without has_dw
};

// Elements of near inputs: HT(w - x) = min(max(w, x - 1), x + 1) - x. The tile sums dY times the minimum, and subtracts x
// times the sum of dY at its end.
template <int M>
struct NearTerms {
  const float* values;
  Simd::Reg low[M], high[M];

  explicit NearTerms(const float* values_) : values(values_) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Simd::Reg x = input(m);
      low[m] = Simd::add(x, Simd::broadcast(-1.0f)), high[m] = Simd::add(x, Simd::broadcast(1.0f));
    }
  }
  Simd::Reg input(int m) const { return Simd::broadcast_at(values + m); }
  Simd::Reg add(Simd::Reg sum, Simd::Reg g, Simd::Reg w, int m, bool) const {
    return Simd::add_between(sum, g, w, low[m], high[m]);
  }
  static Simd::Reg end(Simd::Reg sums, const ChannelList& list, int64_t first) {
    const Simd::Reg minus_x = Simd::scale_add(-1.0f, Simd::load(list.values + first), Simd::zero());
    return Simd::multiply_add(minus_x, Simd::load(list.gradients + first), sums);
  }
};

// Elements of any inputs, by the clipped difference.
template <int M>
struct FarTerms {
  Simd::Reg x[M];

  explicit FarTerms(const float* values) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) x[m] = Simd::broadcast_at(values + m);
  }
  Simd::Reg input(int m) const { return x[m]; }
  Simd::Reg add(Simd::Reg sum, Simd::Reg g, Simd::Reg w, int m, bool is_odd) const {
    return Simd::add_clipped(sum, g, w, x[m], is_odd);
  }
  static Simd::Reg end(Simd::Reg sums, const ChannelList& list, int64_t first) {
    return Simd::keep_nan(sums, Simd::load(list.values + first));
  }
};

// A register of filters against the M inputs of a tile: acc[m] += dY HT(w - x[m]) and, if asked for, dw += dY x[m], where
// dY of input m is load(m). With dw the pipes for multiplications are busy, so that every difference is a subtraction.
template <bool has_dw, int M, typename Terms, typename Load>
inline void add_step(const Terms& terms, const float* w, float* dw, const Load& load,
                     Simd::Reg (&acc)[Simd::kLanes]) {
  const Simd::Reg filter = Simd::load(w);
  Simd::Reg products = Simd::zero();
  if constexpr (has_dw) products = Simd::load(dw);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    Simd::Reg g = load(m);
    if constexpr (has_dw) Simd::hide(g);  // otherwise the compiler would load it twice
    acc[m] = terms.add(acc[m], g, filter, m, !has_dw && m % 2 == 1);
    if constexpr (has_dw) products = Simd::multiply_add(terms.input(m), g, products);
  }
  if constexpr (has_dw) Simd::store(dw, products);
}

// M inputs of one channel that see the same taps: their values, and the offsets of their bases in dY.
struct TileInputs {
  const float* values;
  const int32_t* bases;
};

// The gradients of M inputs, which are those from `first` on in their list. Stores a full register of dX, whose lanes are
// the sums over the filters.
template <template <int> typename Terms, bool has_dw, int M>
void list_tile(const ListRun& run, const ChannelList& list, int64_t first, const TileInputs& inputs) {
  Simd::Reg acc[Simd::kLanes];
  const Terms<M> terms(inputs.values);
  const float* base[M];
#pragma GCC unroll 16
  for (int m = 0; m < Simd::kLanes; ++m) acc[m] = Simd::zero();
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) base[m] = run.dy + inputs.bases[m];
  const int64_t* step = run.steps.dy;
  const ListStretch* stretch = run.steps.begin;
  const float* const filters = run.filters;
  float* const dw = run.dw;
  for (; stretch < run.steps.whole; ++stretch)
    for (int64_t at = stretch->weights; step < stretch->end; ++step, at += Simd::kLanes) {
      const int64_t to_dy = *step;
      add_step<has_dw, M>(terms, filters + at, dw + at, [&](int m) { return Simd::load(base[m] + to_dy); }, acc);
    }
  for (; stretch < run.steps.end; ++stretch)
    for (int64_t at = stretch->weights; step < stretch->end; ++step, at += Simd::kLanes) {
      const int64_t to_dy = *step;
      const auto load = [&](int m) { return Simd::load_first(base[m] + to_dy, run.steps.tail); };
      add_step<has_dw, M>(terms, filters + at, dw + at, load, acc);
    }
  const Simd::Reg sums = Terms<M>::end(Simd::sums(acc), list, first);
  Simd::store(list.sums + first, Simd::add(sums, Simd::broadcast(run.poison)));
}

// A tile of near inputs where the layer has such tiles and all inputs of this one are near, otherwise an ordinary tile.
template <bool has_near, bool has_dw, int M>
inline void any_tile(const ListRun& run, const ChannelList& list, int64_t first, const TileInputs& inputs) {
  if constexpr (has_near) {
    const uint32_t members = (1u << std::min<int64_t>(M, list.count - first)) - 1;  // nothing behind the list decides
    if ((Simd::non_zeros_up_to(Simd::kMostNear, Simd::load(list.values + first)) & members) == members)
      return list_tile<NearTerms, has_dw, M>(run, list, first, inputs);
  }
  list_tile<FarTerms, has_dw, M>(run, list, first, inputs);
}

// The last tile of a list. If it is not full, zeros take the other places: they add nothing to dW, and their dX is not
// read.
template <bool has_near, bool has_dw, int M>
inline void last_tile(const ListRun& run, const ChannelList& list, int64_t first) {
  float values[M];
  int32_t bases[M];
  for (int m = 0; m < M; ++m) {
    values[m] = first + m < list.count ? list.values[first + m] : 0.0f;
    bases[m] = list.bases[std::min(first + m, list.count - 1)];
  }
  any_tile<has_near, has_dw, M>(run, list, first, {values, bases});
}

template <bool has_near, bool has_dw>
inline void run_list(const ListRun& run, const ChannelList& list) {
  constexpr int kFar = has_dw ? Simd::kBothRows : Simd::kListRows;
  constexpr int kNear = has_dw ? Simd::kBothNearRows : Simd::kNearRows;
  constexpr int kWhole = has_near ? kNear : kFar, kHalf = kWhole / 2, kQuarter = kWhole / 4;
  int64_t j = 0;
  for (; j + kWhole <= list.count; j += kWhole)
    any_tile<has_near, has_dw, kWhole>(run, list, j, {list.values + j, list.bases + j});
  const int64_t left = list.count - j;
  if (left > kHalf)
    last_tile<has_near, has_dw, kWhole>(run, list, j);
  else if (left > kQuarter)
    last_tile<has_near, has_dw, kHalf>(run, list, j);
  else if (left > 0)
    last_tile<has_near, has_dw, kQuarter>(run, list, j);
}

// Prefetches the next unit's inputs and this unit's dX.
struct ListAhead {
  Ahead dy, x, dx;

  ListAhead(const DenseGradInputCall& call, const Unit& cut, int64_t calls)
      : dy(ahead(call.dy.data, call.layer, cut, call.layer.O * call.layer.P * call.layer.Q, 1, calls)),
        x(ahead(call.x.data, call.layer, cut, call.layer.C * call.layer.H * call.layer.W, 1, calls)),
        dx(ahead(call.dx, call.layer, cut, call.layer.C * call.layer.H * call.layer.W, 0, calls)) {}
  void fetch() {
    dy.fetch();
    x.fetch();
    dx.fetch<true>();
  }

 private:
  // The part of a tensor that belongs to this unit, or to the one `later` units behind it.
  static Ahead ahead(const float* data, const Layer& d, const Unit& cut, int64_t image_floats, int64_t later,
                     int64_t calls) {
    const int64_t row_floats = image_floats / d.H;
    const int64_t begin = cut.n0 * image_floats + cut.row0 * row_floats;
    const int64_t floats = cut.images() == 1 ? cut.rows() * row_floats : cut.images() * image_floats;
    return Ahead(data, begin + later * floats, begin + (later + 1) * floats, d.N * image_floats, calls);
  }
};

// The channels whose gradients a walk computes, and where it adds dY X of their filters: sums that lie as the packed
// filters do, or null.
struct ListedChannels {
  int64_t begin, end;
  float* dw;
};

// The gradients at the non-zeros of a phase; dX is 0 everywhere else.
inline void compute_non_zeros(const DenseGradInputCall& call, const PackedLists& packed, const GradUnit& unit,
                              const PhasePositions& phase, const float* output_sums, float* dx,
                              const ListedChannels& channels, ListScratch& scratch) {
  const Layer& d = call.layer;
  const auto run_of = [&](bool has_near) {
    if (has_near) return channels.dw ? run_list<true, true> : run_list<true, false>;
    return channels.dw ? run_list<false, true> : run_list<false, false>;
  };
  ListAhead ahead(call, unit.cut, (channels.end - channels.begin) * phase.num_segments);
  const ListedPositions at(d, unit, phase, output_sums, scratch);
  for (int64_t c0 = channels.begin; c0 < channels.end; c0 += Simd::kLanes) {
    const int lanes = lanes_left(channels.end, c0);
    const ChannelLists lists(phase, at, unit.x + c0, lanes, scratch);
    for (int64_t i = 0; i < phase.num_segments; ++i) {
      const ListSteps steps(d, phase, phase.segments[i].taps, packed, scratch);
      for (int lane = 0; lane < lanes; ++lane) {
        const int64_t c = c0 + lane, of_channel = c * packed.channel_floats;
        float* const dw = channels.dw ? channels.dw + of_channel : packed.filters;  // never written without dw
        const ListRun run{steps, packed.filters + of_channel, unit.dy.data, packed.poison[c], dw};
        const ChannelList list = lists.list(lane, i);
        run_of(list.gradients != nullptr)(run, list);
        ahead.fetch();
      }
    }
    lists.write(dx + c0);
  }
}

}  // namespace
}  // namespace addertrain::cpu
