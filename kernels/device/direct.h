// One output at a time, straight from the equations: any stride, padding, dilation and layout. The slow, obvious path
// (float64; on GPUs also what no tile can hold). No atomics: each output has one owner, who sums in `Acc` and rounds
// once.
#pragma once

#include "device/reference_maths.h"
#include "device/layer.h"

namespace addertrain {

// Eq. 2 at (n, o, p, q), or another sum of term(x, w). A tap outside the image is a spatial zero pad: x = 0 takes part.
template <typename Acc, typename T, typename Term>
ADDERTRAIN_HOST_DEVICE inline Acc direct_forward(const Layer& d, const T* x, ImageStrides xs, const T* w,
                                                 ImageStrides ws, const Term& term, int64_t n, int64_t o, int64_t p,
                                                 int64_t q) {
  Acc sum = 0;
  for (int64_t r = 0; r < d.R; ++r) {
    const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
    for (int64_t s = 0; s < d.S; ++s) {
      const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
      const bool inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
      const T* x_c = x + n * xs.n + h * xs.h + v * xs.w;
      const T* w_c = w + o * ws.n + r * ws.h + s * ws.w;
      for (int64_t c = 0; c < d.C; ++c)
        sum += term(inside ? Acc(x_c[c * xs.c]) : Acc(0), Acc(w_c[c * ws.c]));
    }
  }
  return sum;
}

// Position along the output that reads input position `at` through filter tap `tap`, or -1.
ADDERTRAIN_HOST_DEVICE inline int64_t output_position(int64_t at, int64_t tap, int64_t stride, int64_t padding,
                                                      int64_t dilation, int64_t size) {
  const int64_t scaled = at + padding - tap * dilation;
  if (scaled < 0 || scaled % stride != 0) return -1;
  return scaled / stride < size ? scaled / stride : -1;
}

// Eq. 6 and 7 at (n, c, h, v), or another sum of dY slope(w - x): gathers every output that saw this input.
template <typename Acc, typename T, typename Slope>
ADDERTRAIN_HOST_DEVICE inline Acc direct_grad_input(const Layer& d, const T* dy, ImageStrides ys, const T* x,
                                                    ImageStrides xs, const T* w, ImageStrides ws, const Slope& slope,
                                                    int64_t n, int64_t c, int64_t h, int64_t v) {
  const Acc at_x = Acc(x[n * xs.n + c * xs.c + h * xs.h + v * xs.w]);
  Acc sum = 0;
  for (int64_t r = 0; r < d.R; ++r) {
    const int64_t p = output_position(h, r, d.stride_h, d.padding_h, d.dilation_h, d.P);
    if (p < 0) continue;
    for (int64_t s = 0; s < d.S; ++s) {
      const int64_t q = output_position(v, s, d.stride_w, d.padding_w, d.dilation_w, d.Q);
      if (q < 0) continue;
      const T* dy_o = dy + n * ys.n + p * ys.h + q * ys.w;
      const T* w_o = w + c * ws.c + r * ws.h + s * ws.w;
      for (int64_t o = 0; o < d.O; ++o) sum += Acc(dy_o[o * ys.c]) * slope(Acc(w_o[o * ws.n]) - at_x);
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
struct Element {
  int64_t n, c, h, w;

  ADDERTRAIN_HOST_DEVICE Element(int64_t i, int64_t C, int64_t H, int64_t W, const ImageStrides& strides) {
    if (strides.c == 1) {
      n = i / (C * W * H), h = i / (C * W) % H, w = i / C % W, c = i % C;
    } else {
      n = i / (W * H * C), c = i / (W * H) % C, h = i / W % H, w = i % W;
    }
  }
  ADDERTRAIN_HOST_DEVICE int64_t offset(const ImageStrides& strides) const {
    return n * strides.n + c * strides.c + h * strides.h + w * strides.w;
  }
};

// The passes as lists of outputs: call with every i in [0, count()), in any order, on any thread. `d` holds the sizes of
// one group; all of a layer's groups lie side by side along the channels of x, y and dY and along the filters.
template <typename Acc, typename T, typename Term = Similarity<Acc>>
struct DirectForward {
  Layer d;
  const T* x;
  ImageStrides x_strides;
  const T* w;
  ImageStrides w_strides;
  T* y;
  ImageStrides y_strides;
  Term term;
  int64_t groups = 1;

  ADDERTRAIN_HOST_DEVICE int64_t count() const { return d.N * groups * d.O * d.P * d.Q; }
  ADDERTRAIN_HOST_DEVICE void operator()(int64_t i) const {
    const Element at(i, groups * d.O, d.P, d.Q, y_strides);
    const T* x_group = x + at.c / d.O * d.C * x_strides.c;
    y[at.offset(y_strides)] =
        T(direct_forward<Acc>(d, x_group, x_strides, w, w_strides, term, at.n, at.c, at.h, at.w));
  }
};

template <typename Acc, typename T, typename Slope = HardTanh<Acc>>
struct DirectGradInput {
  Layer d;
  const T* dy;
  ImageStrides dy_strides;
  const T* x;
  ImageStrides x_strides;
  const T* w;
  ImageStrides w_strides;
  T* dx;
  ImageStrides dx_strides;
  int64_t groups = 1;
  Slope slope = {};

  ADDERTRAIN_HOST_DEVICE int64_t count() const { return d.N * groups * d.C * d.H * d.W; }
  ADDERTRAIN_HOST_DEVICE void operator()(int64_t i) const {
    const Element at(i, groups * d.C, d.H, d.W, dx_strides);
    const int64_t group = at.c / d.C;
    const T* dy_group = dy + group * d.O * dy_strides.c;
    const T* x_group = x + group * d.C * x_strides.c;
    const T* w_group = w + group * d.O * w_strides.n;
    dx[at.offset(dx_strides)] = T(direct_grad_input<Acc>(d, dy_group, dy_strides, x_group, x_strides, w_group, w_strides,
                                                         slope, at.n, at.c % d.C, at.h, at.w));
  }
};

// The filter gradient of other distances than l1, whose own is a convolution's.
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
    const Element at(i, d.C, d.R, d.S, dw_strides);
    const T* x_group = x + at.n / d.O * d.C * x_strides.c;
    const Acc at_w = Acc(w[at.offset(w_strides)]);
    dw[at.offset(dw_strides)] =
        T(direct_grad_weight<Acc>(d, dy, dy_strides, x_group, x_strides, at_w, slope, at.n, at.c, at.h, at.w));
  }
};

}  // namespace addertrain
