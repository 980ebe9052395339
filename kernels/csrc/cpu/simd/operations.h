// What an instruction set has to offer to the passes, which use nothing else of it: the struct `Simd` of simd/*.h.
//
// One such struct is in scope wherever a pass is compiled; instruction_sets/passes.h checks it against this list. A set may
// compute in its own way, as long as these rules hold on every set:
//   - min and max give b where either operand is NaN; add_clipped may clip a NaN, because keep_nan puts it back
//   - `first` and `count` lanes are the lower ones, the others are 0 (or not stored)
//   - sums add lanes in an order that depends on nothing but the set
#pragma once

#include <concepts>
#include <cstdint>

#include "csrc/cpu/power_fit.h"

namespace addertrain::cpu {
namespace {

// The widths of tiles, in positions, for which a pass is compiled.
template <int... Ms>
struct TileWidths {};

template <typename T>
constexpr bool is_tile_widths = false;
template <int... Ms>
constexpr bool is_tile_widths<TileWidths<Ms...>> = true;

// How many sums, and of which shape, stay in registers: constants of the set, from measurements (docs/kernels.md).
template <typename S>
concept TileShapes = requires {
  requires S::kLanes == 4 || S::kLanes == 8 || S::kLanes == 16;  // floats of a register
  requires S::kMaxVectors == 2 || S::kMaxVectors == 4;           // registers of filters in a tile of the forward pass
  // Positions of a plain forward tile with 1, 2 and 4 registers of filters; of the input gradient; of its lists.
  requires S::kForwardRows > 0 && S::kForwardRows2 > 0 && S::kForwardRows4 > 0;
  requires S::kGradRows > 0;
  requires std::same_as<decltype(S::kSlidesDepthwise), const bool>;  // whether the tiles of grouped/sliding.h pay
  requires S::kPowerRows > 0 && S::kPowerRows <= 16;  // sums of a tile with the p-th power of the distance
  requires S::kListRows >= 4 && S::kListRows <= S::kLanes;  // a list's sums are stored as one register
  requires S::kNearRows >= 4 && S::kNearRows <= S::kLanes;  // of those with near inputs alone
  requires S::kBothRows >= 4 && S::kBothRows <= S::kLanes;  // of lists with both gradients
  requires S::kBothNearRows >= 4 && S::kBothNearRows <= S::kLanes;
  // Positions of a sliding tile, and of one over lists of non-zeros, with 1, 2 and 4 registers of filters.
  requires is_tile_widths<typename S::SlidingWidths1> && is_tile_widths<typename S::SlidingWidths2>;
  requires is_tile_widths<typename S::SlidingWidths4>;
  requires is_tile_widths<typename S::SparseWidths1> && is_tile_widths<typename S::SparseWidths2>;
  requires is_tile_widths<typename S::SparseWidths4>;
};

// Memory to registers and back.
template <typename S>
concept Moves = requires(typename S::Reg& r, typename S::Reg (&registers)[S::kLanes], const float* from, float* to,
                         int count, uint32_t lanes) {
  r = S::zero();
  r = S::broadcast(1.0f);
  r = S::broadcast_at(from);  // loads and broadcasts at once
  r = S::load(from);          // any address
  r = S::load_first(from, count);
  r = S::load_lanes(from, lanes);  // the lanes whose bits are set
  r = S::join_halves(r, r);        // the first half of each
  S::store(to, r);
  S::store_first(to, r, count);
  S::stream(to, r);     // past the caches; used where kSlidesDepthwise is true
  S::finish_streams();  // before another thread reads them
  S::transpose(registers);  // lane j of register i to lane i of register j
  S::hide(r);               // makes the compiler forget what it knows of a value
};

// The passes' own arithmetic, in float32.
template <typename S>
concept Arithmetic = requires(typename S::Reg& r, const typename S::Reg (&registers)[S::kLanes]) {
  r = S::add(r, r);
  r = S::min(r, r);
  r = S::max(r, r);
  r = S::scale_add(2.0f, r, r);           // scale a + b
  r = S::add_min(r, r, r);                // sum + min(x, w)
  r = S::add_similarity(r, r, r, r);      // sum + (offset - |x - w|)
  r = S::multiply_add(r, r, r);           // a b + c
  r = S::add_clipped(r, r, r, r, true);   // sum + g HT(w - x); is_odd may spread the work over pipes
  // sum + g min(max(w, low), high) for high > 0. Used for x up to kMostNear; 0 where it is no faster than add_clipped.
  r = S::add_between(r, r, r, r, r);
  requires std::same_as<decltype(S::kMostNear), const float>;
  r = S::keep_nan(r, r);                  // the first, or NaN in the lanes where the second is NaN
  r = S::sums(registers);                 // lane i: the sum of register i
  { S::sum(r) } -> std::same_as<float>;
};

// What |d|^q is made of (power/element.h).
template <typename S>
concept Powers = requires(typename S::Reg& r, const PowerFit& fit) {
  r = S::distance(r, r);                // |a - b|
  r = S::mantissa(r);                   // in [1, 2), whatever the value; m of +-m 2^e
  r = S::power_of_exponent(fit, r);     // 2^(q e), by a table of `fit`
  r = S::signed_as(r, r);               // the first, which is not negative, times the sign of the second: 0 for 0
};

// Lists of non-zeros. Where kHasCompress is false the forward pass has none; the input gradient's lists work on every set.
template <typename S>
concept Compresses = requires(typename S::Reg& r, const float* from, float* values, int32_t* lanes,
                              const int32_t* table) {
  requires std::same_as<decltype(S::kHasCompress), const bool>;
  { S::count_non_zeros(from, 1) } -> std::same_as<int>;
  { S::compress_non_zeros(r, 0, values, lanes) } -> std::same_as<int>;         // writes a full register of each
  { S::non_zeros(r) } -> std::same_as<uint32_t>;             // which lanes, as bits; NaN is one
  { S::non_zeros_up_to(1.0f, r) } -> std::same_as<uint32_t>;  // 0 < value <= limit
  r = S::compress(r, uint32_t{1});                           // the lanes whose bits are set, in order
  S::compress_entries(table, uint32_t{1}, lanes);            // the same of a table; writes a full register
  r = S::expand_entries(uint32_t{1}, from);                  // the inverse: the others get 0
};

template <typename S>
concept SimdOperations = TileShapes<S> && Moves<S> && Arithmetic<S> && Powers<S> && Compresses<S>;

}  // namespace
}  // namespace addertrain::cpu
