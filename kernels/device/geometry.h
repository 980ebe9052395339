// How row m of a contraction (a position) and step k (a tap and a channel) find their elements.
//
// Both passes are out[m, n] = sum_k f(A[m, k], B[n, k]), A gathered from an image and B the packed filters:
//   forward         A = X, position i of an axis reads i*stride - padding + r*dilation at tap r
//   input gradient  A = dY, one phase of the stride after the other (stride_phases.h)
#pragma once

#include <cstdint>
#include <numeric>

#include "device/layer.h"
#include "device/stride_phases.h"

namespace addertrain {

constexpr int kMaxTaps = 16;   // along an axis: which of them lie inside the image is a mask of 16 + 16 bits
constexpr int kMaxStride = 8;  // along an axis: as many phases

// One axis of one phase.
struct Axis {
  int positions;               // i = 0, 1, ... of the phase
  int taps;                    // t = 0, 1, ... that its positions see
  int step, offset, tap_step;  // tap t at position i reads i*step + offset + t*tap_step ...
  int source;                  // ... of so many; outside lies the spatial zero pad
  int out_step, out_offset;    // position i is i*out_step + out_offset of the result
  int first_tap, tap_jump;     // tap t is first_tap + t*tap_jump of the filter
};

// Element strides of an image that 32 bits can hold within one image.
struct Strides {
  int64_t n;
  int c, h, w;
};

struct Problem {
  Axis vertical[kMaxStride], horizontal[kMaxStride];
  int phases_h, phases_w;
  int images, channels;  // of A
  int columns;           // of the result: n
  int out_h, out_w;      // of the result
  Strides source;        // of A
  ImageStrides out;
};

inline Strides narrow(const ImageStrides& s) {
  return {s.n, static_cast<int>(s.c), static_cast<int>(s.h), static_cast<int>(s.w)};
}

inline Axis forward_axis(int64_t positions, int64_t source, int64_t taps, int64_t stride, int64_t padding,
                         int64_t dilation) {
  Axis axis{};
  axis.positions = static_cast<int>(positions), axis.taps = static_cast<int>(taps);
  axis.step = static_cast<int>(stride), axis.offset = -static_cast<int>(padding);
  axis.tap_step = static_cast<int>(dilation), axis.source = static_cast<int>(source);
  axis.out_step = 1, axis.tap_jump = 1;
  return axis;
}

// The inputs first, first + stride, ...; the taps that lead to outputs are a progression.
inline Axis grad_axis(int first, int64_t size, int64_t source, int taps, int stride, int padding, int dilation) {
  const StridePhase phase{first, stride, padding, dilation};
  Axis axis{};
  axis.positions = static_cast<int>(phase.inputs_before(size));
  axis.step = 1, axis.source = static_cast<int>(source);
  axis.out_step = stride, axis.out_offset = first;
  const int jump = stride / std::gcd(stride, dilation);
  for (int r = 0; r < taps && r < jump; ++r) {
    int64_t shift;
    if (!phase.find_shift(r, shift)) continue;
    axis.first_tap = r, axis.tap_jump = jump, axis.taps = (taps - 1 - r) / jump + 1;
    axis.offset = static_cast<int>(shift), axis.tap_step = -jump * dilation / stride;
  }
  return axis;  // without such a tap the phase's gradient is 0
}

inline Problem forward_problem(const Layer& d, const ImageStrides& x, const ImageStrides& y) {
  Problem p{};
  p.vertical[0] = forward_axis(d.P, d.H, d.R, d.stride_h, d.padding_h, d.dilation_h);
  p.horizontal[0] = forward_axis(d.Q, d.W, d.S, d.stride_w, d.padding_w, d.dilation_w);
  p.phases_h = p.phases_w = 1;
  p.images = static_cast<int>(d.N), p.channels = static_cast<int>(d.C), p.columns = static_cast<int>(d.O);
  p.out_h = static_cast<int>(d.P), p.out_w = static_cast<int>(d.Q);
  p.source = narrow(x), p.out = y;
  return p;
}

inline Problem grad_input_problem(const Layer& d, const ImageStrides& dy, const ImageStrides& dx) {
  Problem p{};
  p.phases_h = static_cast<int>(d.stride_h), p.phases_w = static_cast<int>(d.stride_w);
  for (int i = 0; i < p.phases_h; ++i)
    p.vertical[i] = grad_axis(i, d.H, d.P, static_cast<int>(d.R), p.phases_h, static_cast<int>(d.padding_h),
                              static_cast<int>(d.dilation_h));
  for (int i = 0; i < p.phases_w; ++i)
    p.horizontal[i] = grad_axis(i, d.W, d.Q, static_cast<int>(d.S), p.phases_w, static_cast<int>(d.padding_w),
                                static_cast<int>(d.dilation_w));
  p.images = static_cast<int>(d.N), p.channels = static_cast<int>(d.O), p.columns = static_cast<int>(d.C);
  p.out_h = static_cast<int>(d.H), p.out_w = static_cast<int>(d.W);
  p.source = narrow(dy), p.out = dx;
  return p;
}

}  // namespace addertrain
