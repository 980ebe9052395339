// Rows of A: where each position of a tile reads, and which of its taps lie inside the image.
//
// Two things that write zeros, with two names. A *spatial zero pad* is x = 0, which takes part: its copy fills with
// zeros. A *tail* (k past the last tap, rows past the last position) contributes nothing: in k the packed filters are
// zero as well, and |0 - 0| = 0; rows past the end are never stored.
#pragma once

#include "device/geometry.h"
#include "device/platform.h"

namespace addertrain {

// The phase of this block, and the number of its positions and steps.
struct Phase {
  const Axis& v;
  const Axis& h;

  ADDERTRAIN_DEVICE explicit Phase(const Problem& p)
      : v(p.vertical[blockIdx.z / p.phases_w]), h(p.horizontal[blockIdx.z % p.phases_w]) {}
  ADDERTRAIN_DEVICE int positions() const { return v.positions * h.positions; }
  ADDERTRAIN_DEVICE int rows(const Problem& p) const { return p.images * positions(); }
  ADDERTRAIN_DEVICE int depth(const Problem& p) const { return v.taps * h.taps * p.channels; }
};

// Row m as an image and a position on each axis.
struct Position {
  int image, i, j;

  ADDERTRAIN_DEVICE Position(const Phase& phase, int m) {
    image = m / phase.positions();
    const int rest = m - image * phase.positions();
    i = rest / phase.h.positions;
    j = rest - i * phase.h.positions;
  }
};

// kRows rows of A, kRowStep apart, that one thread loads: addresses by 32-bit offsets from the tile's first image.
template <class T, int kRows, int kRowStep>
struct GatheredRows {
  const T* base;
  int offset[kRows];
  unsigned mask[kRows];  // bit t: tap row t lies inside; bit 16 + t: tap column t

  ADDERTRAIN_DEVICE void init(const Problem& p, const Phase& phase, const T* source, int tile_row, int first_row,
                              int tile_rows) {
    const int first_image = tile_row / phase.positions();
    base = source + first_image * p.source.n;
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
      const int row = first_row + q * kRowStep;
      const bool is_row = tile_row + row < phase.rows(p) && row < tile_rows;
      const Position at(phase, is_row ? tile_row + row : tile_row);
      const int h = at.i * phase.v.step + phase.v.offset, w = at.j * phase.h.step + phase.h.offset;
      offset[q] = (at.image - first_image) * static_cast<int>(p.source.n) + h * p.source.h + w * p.source.w;
      mask[q] = is_row ? taps_inside(phase.v, h) | taps_inside(phase.h, w) << 16 : 0u;
    }
  }
  static ADDERTRAIN_DEVICE unsigned taps_inside(const Axis& axis, int first) {
    unsigned bits = 0;
    for (int t = 0; t < axis.taps; ++t)
      bits |= unsigned(unsigned(first + t * axis.tap_step) < unsigned(axis.source)) << t;
    return bits;
  }
};

// A step k as tap row, tap column and channel, advanced without division.
struct Tap {
  int r, s, c;

  ADDERTRAIN_DEVICE void init(const Problem& p, const Phase& phase, int k) {
    const int tap = k / p.channels;
    c = k - tap * p.channels;
    r = tap / max(phase.h.taps, 1);
    s = tap - r * max(phase.h.taps, 1);
  }
  ADDERTRAIN_DEVICE void advance(const Problem& p, const Phase& phase, int steps) {
    c += steps;
    while (c >= p.channels) {
      c -= p.channels;
      if (++s == phase.h.taps) s = 0, ++r;
    }
  }
  // Past the last tap the mask must not be read: it has 16 bits for each axis.
  ADDERTRAIN_DEVICE bool is_inside(const Phase& phase, unsigned mask) const {
    return r < phase.v.taps && (mask >> r & mask >> (16 + s) & 1u);
  }
  ADDERTRAIN_DEVICE int offset(const Problem& p, const Phase& phase) const {
    return r * phase.v.tap_step * p.source.h + s * phase.h.tap_step * p.source.w + c * p.source.c;
  }
};

}  // namespace addertrain
