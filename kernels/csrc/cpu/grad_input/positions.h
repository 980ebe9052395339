// The input positions that a unit of the input gradient walks, and the outputs that saw them.
//
// A stride u splits the input into u*u phases of positions that are led to outputs by the same taps
// (device/stride_phases.h). Within a phase they are divided into segments in which the same taps lead to outputs inside the
// response: the interior, the edges, the corners.
#pragma once

#include "csrc/cpu/kernels.h"
#include "csrc/cpu/movement/units.h"
#include "device/stride_phases.h"

namespace addertrain::cpu {
namespace {

// Filter rows and columns through which a position sees an output, as bits.
struct Taps {
  uint64_t rows, columns;

  bool has(int64_t r, int64_t s) const { return (rows >> r & 1) && (columns >> s & 1); }
  bool operator==(const Taps& other) const { return rows == other.rows && columns == other.columns; }
};

// A position: the output at its base (not read unless a tap leads there), its place in x and dX, its taps.
struct InputPosition {
  const float* dy;
  int64_t pixel;
  Taps taps;
};

// Layers on small images have many channels: every unit reads filters that do not stay in a cache, and lists of few
// positions end in tiles that are not full. Their units therefore fill the second-level cache, unless filters are 1x1,
// which read each output once for a channel.
inline Cut cut_grad_input(const Layer& d) {
  constexpr int64_t kSmallImage = 256, kManyFloats = 256 * 1024;
  const int64_t dy_floats_per_row = ceil_div(d.W + 2 * d.padding_w, d.stride_w) * d.O / d.stride_h;
  return Cut(d.N, d.H, d.W, dy_floats_per_row + d.W * d.C, d.stride_h,
             d.R * d.S > 1 && d.H * d.W <= kSmallImage ? kManyFloats : kUnitFloats);
}

// As many columns as let the rows of dY that their positions see stay in the nearest cache.
inline int64_t near_columns(const Layer& d) {
  constexpr int64_t kNearestFloats = 4 * 1024;
  return std::max<int64_t>(4, kNearestFloats / (ceil_div(d.R, d.stride_h) * d.O) - (d.S - 1) / d.stride_w);
}

// The rows of outputs that saw any of the unit's input rows, without those outside the output.
inline Window dy_window(const Layer& d, const Unit& unit) {
  const int64_t p0 = floor_div(unit.row0 + d.padding_h - (d.R - 1) * d.dilation_h, d.stride_h);
  const int64_t p1 = floor_div(unit.row1 - 1 + d.padding_h, d.stride_h) + 1;
  const int64_t first = std::clamp<int64_t>(p0, 0, d.P);
  return {first, std::clamp<int64_t>(p1, first, d.P) - first, 0, d.Q};
}

// One axis of one phase of a unit.
struct PhaseAxis {
  StridePhase phase;
  int64_t first;  // input of the unit
  int64_t size;   // inputs
  int64_t taps, outputs;
};

struct GradUnit {
  Unit cut;
  int64_t first_output_row;
  Buffer dy;
  const float* x;  // pixels of the unit, position-major, C floats a position
  int64_t strip;   // columns of positions that are walked at a time, row after row
};

// ---------------------------------------------------------------- one axis

// The taps through which input i sees an output, as bits.
inline uint64_t taps_of(const PhaseAxis& axis, int64_t i) {
  uint64_t bits = 0;
  for (int64_t tap = 0; tap < axis.taps; ++tap) {
    int64_t shift;
    if (axis.phase.find_shift(tap, shift) && shift + i >= 0 && shift + i < axis.outputs) bits |= uint64_t{1} << tap;
  }
  return bits;
}

// First input after i that sees other taps: where a tap enters or leaves the output.
inline int64_t end_of_segment(const PhaseAxis& axis, int64_t i) {
  int64_t end = axis.size;
  for (int64_t tap = 0; tap < axis.taps; ++tap) {
    int64_t shift;
    if (!axis.phase.find_shift(tap, shift)) continue;
    if (-shift > i) end = std::min(end, -shift);
    if (axis.outputs - shift > i) end = std::min(end, axis.outputs - shift);
  }
  return end;
}

// ---------------------------------------------------------------- one phase of a unit

// Appends the positions of rows [i0, i1) x columns [j0, j1), which all see `taps`, and returns how many they are.
inline int64_t append_positions(const Layer& d, const GradUnit& unit, const PhaseAxis& down, const PhaseAxis& across,
                                int64_t i0, int64_t i1, int64_t j0, int64_t j1, Taps taps, InputPosition* to) {
  int64_t at = 0;
  for (int64_t n = 0; n < unit.cut.images(); ++n)
    for (int64_t first = j0; first < j1; first += unit.strip)
      for (int64_t i = i0; i < i1; ++i) {
        const int64_t row = n * unit.cut.rows() + down.first + i * d.stride_h;
        const float* dy_row = unit.dy.data + n * unit.dy.image_pitch + (i - unit.first_output_row) * unit.dy.row_pitch;
        for (int64_t j = first; j < std::min(j1, first + unit.strip); ++j)
          to[at++] = {dy_row + j * d.O, (row * d.W + across.first + j * d.stride_w) * d.C, taps};
      }
  return at;
}

// Positions [begin, end) of a phase, which all see the same taps.
struct Segment {
  int64_t begin, end;
  Taps taps;
};

// All positions of a phase, segment by segment, and where their taps lead.
struct PhasePositions {
  const InputPosition* positions;  // padded with the last one to a full tile
  int64_t count;
  const Segment* segments;
  int64_t num_segments;
  const int64_t* down;    // per filter row: from a position's base to the output it reads
  const int64_t* across;  // per filter column
};

struct PhaseScratch {
  Memory<InputPosition> positions;
  Memory<Segment> segments;
  OffsetTable shifts;
};

constexpr int64_t kMostPositionsOfTile = 64;

// Lists the positions of one phase of a unit, segment by segment.
inline PhasePositions list_phase(const Layer& d, const GradUnit& unit, const PhaseAxis& down, const PhaseAxis& across,
                                 PhaseScratch& scratch) {
  InputPosition* positions =
      scratch.positions.entries(unit.cut.images() * down.size * across.size + kMostPositionsOfTile);
  Segment* segments = scratch.segments.entries((2 * d.R + 1) * (2 * d.S + 1));
  int64_t count = 0, num_segments = 0;
  for (int64_t i = 0; i < down.size; i = end_of_segment(down, i))
    for (int64_t j = 0; j < across.size; j = end_of_segment(across, j)) {
      const Taps taps{taps_of(down, i), taps_of(across, j)};
      const int64_t added = append_positions(d, unit, down, across, i, end_of_segment(down, i), j,
                                             end_of_segment(across, j), taps, positions + count);
      segments[num_segments++] = {count, count + added, taps};
      count += added;
    }
  for (int64_t m = 0; m < kMostPositionsOfTile; ++m) positions[count + m] = positions[count - 1];
  int64_t* shifts = scratch.shifts.entries(d.R + d.S);
  for (int64_t r = 0, shift; r < d.R; ++r) shifts[r] = down.phase.find_shift(r, shift) ? shift * unit.dy.row_pitch : 0;
  for (int64_t s = 0, shift; s < d.S; ++s) shifts[d.R + s] = across.phase.find_shift(s, shift) ? shift * d.O : 0;
  return {positions, count, segments, num_segments, shifts, shifts + d.R};
}

// Calls `body` with every phase of a unit.
template <typename Body>
inline void for_phases(const Layer& d, const GradUnit& unit, PhaseScratch& scratch, const Body& body) {
  for (int64_t h = 0; h < std::min(d.stride_h, unit.cut.rows()); ++h)
    for (int64_t v = 0; v < std::min(d.stride_w, d.W); ++v) {
      const StridePhase in_rows{unit.cut.row0 + h, d.stride_h, d.padding_h, d.dilation_h};
      const StridePhase in_columns{v, d.stride_w, d.padding_w, d.dilation_w};
      const PhaseAxis down{in_rows, h, in_rows.inputs_before(unit.cut.row1), d.R, d.P};
      const PhaseAxis across{in_columns, v, in_columns.inputs_before(d.W), d.S, d.Q};
      body(list_phase(d, unit, down, across, scratch));
    }
}

}  // namespace
}  // namespace addertrain::cpu
