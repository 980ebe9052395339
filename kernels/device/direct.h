// One output at a time, straight from the equations: any stride, padding, dilation and layout. This is the slow, obvious
// path for float64, and on GPUs also for what no tile can hold and for layers in small groups. There are no atomics: one
// thread sums an output in `Acc` and rounds it once.
#pragma once

#include <type_traits>

#include "device/reference_maths.h"
#include "device/layer.h"

namespace addertrain {

// A layer's sizes and an image's strides as `Index`: 64 bits for every tensor; 32 bits, which GPUs compute in half of
// the instructions, where all positions and offsets of a call fit.
template <typename Index>
struct LayerOf {
  Index N, C, H, W, O, R, S, P, Q;
  Index stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;

  ADDERTRAIN_HOST_DEVICE LayerOf(const Layer& d)
      : N(Index(d.N)), C(Index(d.C)), H(Index(d.H)), W(Index(d.W)), O(Index(d.O)), R(Index(d.R)), S(Index(d.S)),
        P(Index(d.P)), Q(Index(d.Q)), stride_h(Index(d.stride_h)), stride_w(Index(d.stride_w)),
        padding_h(Index(d.padding_h)), padding_w(Index(d.padding_w)), dilation_h(Index(d.dilation_h)),
        dilation_w(Index(d.dilation_w)) {}
};

template <typename Index>
struct StridesOf {
  Index n, c, h, w;

  ADDERTRAIN_HOST_DEVICE StridesOf(const ImageStrides& s)
      : n(Index(s.n)), c(Index(s.c)), h(Index(s.h)), w(Index(s.w)) {}
};

// Whether a position lies in [0, size), by one comparison.
template <typename Index>
ADDERTRAIN_HOST_DEVICE inline bool is_inside(Index at, Index size) {
  using Unsigned = std::make_unsigned_t<Index>;
  return Unsigned(at) < Unsigned(size);
}

// at / size for at >= 0: unsigned, which takes fewer instructions.
template <typename Index>
ADDERTRAIN_HOST_DEVICE inline Index quotient(Index at, Index size) {
  using Unsigned = std::make_unsigned_t<Index>;
  return Index(Unsigned(at) / Unsigned(size));
}

// Eq. 2 at output (p, q), or another sum of term(x, w). `at_image` and `at_filter`: where x lies at its image and the
// group's first channel, and w at its filter. A tap outside the image is a spatial zero pad: x = 0 takes part.
// kIsDepthwise: C is known to be 1.
template <bool kIsDepthwise, typename Acc, typename T, typename Index, typename Term>
ADDERTRAIN_HOST_DEVICE inline Acc direct_forward(const LayerOf<Index>& d, const T* x, Index at_image,
                                                 const StridesOf<Index>& xs, const T* w, Index at_filter,
                                                 const StridesOf<Index>& ws, const Term& term, Index p, Index q) {
  const Index channels = kIsDepthwise ? Index(1) : d.C;
  const Index left = q * d.stride_w - d.padding_w;
  Index h = p * d.stride_h - d.padding_h;
  Acc sum = 0;
  for (Index r = 0; r < d.R; ++r, h += d.dilation_h) {
    Index v = left, at_x = at_image + h * xs.h + left * xs.w, at_w = at_filter + r * ws.h;
    for (Index s = 0; s < d.S; ++s, v += d.dilation_w, at_x += d.dilation_w * xs.w, at_w += ws.w) {
      const bool inside = is_inside(h, d.H) && is_inside(v, d.W);
      for (Index c = 0; c < channels; ++c)
        sum += term(inside ? Acc(x[at_x + c * xs.c]) : Acc(0), Acc(w[at_w + c * ws.c]));
    }
  }
  return sum;
}

// The positions along an axis of the output that read input position `at` through taps 0, 1, ...
template <typename Index>
struct OutputWalk {
  Index stride, size;
  Index step, step_remainder;  // of a tap: the dilation over the stride
  Index position, remainder;

  ADDERTRAIN_HOST_DEVICE OutputWalk(Index at, Index stride, Index padding, Index dilation, Index size)
      : stride(stride), size(size) {
    step = quotient(dilation, stride), step_remainder = dilation - step * stride;
    position = quotient(at + padding, stride), remainder = at + padding - position * stride;
  }
  // Whether there is such a position: with a stride, some taps lead to none.
  ADDERTRAIN_HOST_DEVICE bool is_there() const { return remainder == 0 && is_inside(position, size); }
  ADDERTRAIN_HOST_DEVICE void next_tap() {
    position -= step, remainder -= step_remainder;
    if (remainder < 0) remainder += stride, --position;
  }
};

// Eq. 6 and 7 at x, or another sum of dY slope(w - x): gathers every output that saw this input, rows by `p` and
// columns by `first_q`. `at_image` and `at_filters`: where dY lies at its image and the group's first filter, and w at
// that filter and its channel. kIsDepthwise: O is known to be 1.
template <bool kIsDepthwise, typename Acc, typename T, typename Index, typename Slope>
ADDERTRAIN_HOST_DEVICE inline Acc direct_grad_input(const LayerOf<Index>& d, const T* dy, Index at_image,
                                                    const StridesOf<Index>& ys, Acc x, const T* w, Index at_filters,
                                                    const StridesOf<Index>& ws, const Slope& slope,
                                                    OutputWalk<Index> p, const OutputWalk<Index>& first_q) {
  const Index filters = kIsDepthwise ? Index(1) : d.O;
  Acc sum = 0;
  for (Index r = 0; r < d.R; ++r, p.next_tap()) {
    if (!p.is_there()) continue;
    OutputWalk<Index> q = first_q;
    const Index at_row = at_image + p.position * ys.h;
    Index at_w = at_filters + r * ws.h;
    for (Index s = 0; s < d.S; ++s, q.next_tap(), at_w += ws.w) {
      if (!q.is_there()) continue;
      const Index at_y = at_row + q.position * ys.w;
      for (Index o = 0; o < filters; ++o) sum += Acc(dy[at_y + o * ys.c]) * slope(Acc(w[at_w + o * ws.n]) - x);
    }
  }
  return sum;
}

// The sum of dY slope(x - w) at filter (o, c, r, s), over all its positions.
template <typename Acc, typename T, typename Slope>
ADDERTRAIN_HOST_DEVICE inline Acc direct_grad_weight(const Layer& d, const T* dy, ImageStrides ys, const T* x,
                                                     ImageStrides xs, Acc w, const Slope& slope, int64_t o, int64_t c,
                                                     int64_t r, int64_t s) {
  Acc sum = 0;
  for (int64_t n = 0; n < d.N; ++n)
    for (int64_t p = 0; p < d.P; ++p) {
      const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
      for (int64_t q = 0; q < d.Q; ++q) {
        const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
        const bool inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
        const Acc at_x = inside ? Acc(x[n * xs.n + c * xs.c + h * xs.h + v * xs.w]) : Acc(0);
        sum += Acc(dy[n * ys.n + o * ys.c + p * ys.h + q * ys.w]) * slope(at_x - w);
      }
    }
  return sum;
}

// Element i of an image tensor, counted along memory: channels first where they are the innermost axis.
template <typename Index>
struct Element {
  Index n, c, h, w;

  ADDERTRAIN_HOST_DEVICE Element(Index i, Index C, Index H, Index W, const StridesOf<Index>& strides) {
    const bool is_channels_last = strides.c == 1;
    const Index first = innermost(i, is_channels_last ? C : W);
    const Index second = innermost(i, is_channels_last ? W : H);
    const Index third = innermost(i, is_channels_last ? H : C);
    n = i, c = is_channels_last ? first : third;
    h = is_channels_last ? third : second, w = is_channels_last ? second : first;
  }
  ADDERTRAIN_HOST_DEVICE Index offset(const StridesOf<Index>& strides) const {
    return n * strides.n + c * strides.c + h * strides.h + w * strides.w;
  }

 private:
  // i modulo size, and i becomes the rest.
  static ADDERTRAIN_HOST_DEVICE Index innermost(Index& i, Index size) {
    const Index rest = quotient(i, size), at = i - rest * size;
    i = rest;
    return at;
  }
};

// The passes as lists of outputs: call with every i in [0, count()), in any order, on any thread. `d` holds the sizes
// of one group; all of a layer's groups lie side by side along the channels of x, y and dY and along the filters. A
// result's place is found before its sum, so that fewer numbers have to be kept meanwhile.
template <typename Acc, typename T, typename Term = Similarity<Acc>, typename Index = int64_t>
struct DirectForward {
  LayerOf<Index> d;
  const T* x;
  StridesOf<Index> x_strides;
  const T* w;
  StridesOf<Index> w_strides;
  T* y;
  StridesOf<Index> y_strides;
  Term term;
  Index groups = 1;

  ADDERTRAIN_HOST_DEVICE Index count() const { return d.N * groups * d.O * d.P * d.Q; }
  ADDERTRAIN_HOST_DEVICE void operator()(Index i) const {
    const Element<Index> at(i, groups * d.O, d.P, d.Q, y_strides);
    T* const result = y + at.offset(y_strides);
    const Index at_image = at.n * x_strides.n + quotient(at.c, d.O) * d.C * x_strides.c, at_filter = at.c * w_strides.n;
    *result = T(d.C == 1 ? sum<true>(at, at_image, at_filter) : sum<false>(at, at_image, at_filter));
  }

 private:
  template <bool kIsDepthwise>
  ADDERTRAIN_HOST_DEVICE Acc sum(const Element<Index>& at, Index at_image, Index at_filter) const {
    return direct_forward<kIsDepthwise, Acc>(d, x, at_image, x_strides, w, at_filter, w_strides, term, at.h, at.w);
  }
};

template <typename Acc, typename T, typename Slope = HardTanh<Acc>, typename Index = int64_t>
struct DirectGradInput {
  LayerOf<Index> d;
  const T* dy;
  StridesOf<Index> dy_strides;
  const T* x;
  StridesOf<Index> x_strides;
  const T* w;
  StridesOf<Index> w_strides;
  T* dx;
  StridesOf<Index> dx_strides;
  Index groups = 1;
  Slope slope = {};

  ADDERTRAIN_HOST_DEVICE Index count() const { return d.N * groups * d.C * d.H * d.W; }
  ADDERTRAIN_HOST_DEVICE void operator()(Index i) const {
    const Element<Index> at(i, groups * d.C, d.H, d.W, dx_strides);
    const Walk p(at.h, d.stride_h, d.padding_h, d.dilation_h, d.P), q(at.w, d.stride_w, d.padding_w, d.dilation_w, d.Q);
    const Index group = quotient(at.c, d.C), first = group * d.O;
    const Index at_image = at.n * dy_strides.n + first * dy_strides.c;
    const Index at_filters = first * w_strides.n + (at.c - group * d.C) * w_strides.c;
    const Acc at_x = Acc(x[at.offset(x_strides)]);
    T* const result = dx + at.offset(dx_strides);
    *result = T(d.O == 1 ? sum<true>(at_x, at_image, at_filters, p, q) : sum<false>(at_x, at_image, at_filters, p, q));
  }

 private:
  using Walk = OutputWalk<Index>;

  template <bool kIsDepthwise>
  ADDERTRAIN_HOST_DEVICE Acc sum(Acc at_x, Index at_image, Index at_filters, const Walk& p, const Walk& q) const {
    return direct_grad_input<kIsDepthwise>(d, dy, at_image, dy_strides, at_x, w, at_filters, w_strides, slope, p, q);
  }
};

// The filter gradient with a power of the distance; without one it is a convolution's (addertrain/ops/grad_weight.py).
template <typename Acc, typename T, typename Slope>
struct DirectGradWeight {
  Layer d;
  const T* dy;
  ImageStrides dy_strides;
  const T* x;
  ImageStrides x_strides;
  const T* w;
  ImageStrides w_strides;
  T* dw;
  ImageStrides dw_strides;
  int64_t groups;
  Slope slope;

  ADDERTRAIN_HOST_DEVICE int64_t count() const { return groups * d.O * d.C * d.R * d.S; }
  ADDERTRAIN_HOST_DEVICE void operator()(int64_t i) const {
    const Element<int64_t> at(i, d.C, d.R, d.S, dw_strides);
    const T* x_group = x + at.n / d.O * d.C * x_strides.c;
    const Acc at_w = Acc(w[at.offset(w_strides)]);
    dw[at.offset(dw_strides)] =
        T(direct_grad_weight<Acc>(d, dy, dy_strides, x_group, x_strides, at_w, slope, at.n, at.c, at.h, at.w));
  }
};

}  // namespace addertrain
