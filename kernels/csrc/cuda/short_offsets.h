// Whether a call's positions and offsets fit 32 bits, which GPUs compute in half of the instructions.
#pragma once

#include <limits>

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

// Whether 32 bits hold the offsets from an image's or a filter's first element on, with the positions of the padding.
inline bool is_short(const ImageStrides& s, double n, double c, double h, double w) {
  const double reach = n * double(s.n) + c * double(s.c) + h * double(s.h) + w * double(s.w);
  return reach < std::numeric_limits<int32_t>::max() && n * c * h * w < std::numeric_limits<int32_t>::max();
}

inline bool is_short_layer(const Layer& d, int64_t groups, const ImageStrides& x, const ImageStrides& w,
                           const ImageStrides& y) {
  const double height = double(d.H) + 2.0 * double(d.padding_h), width = double(d.W) + 2.0 * double(d.padding_w);
  return is_short(x, d.N, groups * d.C, height, width) && is_short(w, groups * d.O, d.C, d.R, d.S) &&
         is_short(y, d.N, groups * d.O, d.P, d.Q);
}

inline bool is_short_call(const ForwardCall& call) {
  return is_short_layer(call.layer, call.groups, call.x.strides, call.w.strides, call.y.strides);
}
inline bool is_short_call(const GradInputCall& call) {
  return is_short_layer(call.layer, call.groups, call.x.strides, call.w.strides, call.dy.strides) &&
         is_short_layer(call.layer, call.groups, call.dx.strides, call.w.strides, call.dy.strides);
}

}  // namespace addertrain::cuda
