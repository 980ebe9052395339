// What an instruction set's kernels offer to the operators: plain C++, no torch.
//
// A call is cut into units (a few whole images, or a band of rows of one). Units are independent, each output belongs
// to one unit, and the cut depends on the layer's sizes alone: the same sums in the same order for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/layer.h"

namespace addertrain::cpu {

enum class Layout { kNchw, kNhwc };

struct Image {
  const float* data;
  Layout layout;
};

struct ForwardCall {
  Layer layer;
  Image x;
  const float* w;
  ImageStrides w_strides;
  float* y;
  Layout y_layout;
  bool offset_free;
};

struct GradInputCall {
  Layer layer;
  Image dy;
  Image x;
  const float* w;
  ImageStrides w_strides;
  float* dx;  // in the layout of x
};

// One pass: pack the filters once (a block of filters at a time), then compute units. `packed` has `packed_floats`.
template <typename Call>
struct Pass {
  int64_t (*packed_floats)(const Call&);
  int64_t (*num_blocks)(const Call&);
  void (*pack)(const Call&, int64_t block, float* packed);
  int64_t (*num_units)(const Call&);
  void (*compute)(const Call&, const float* packed, int64_t unit_begin, int64_t unit_end);
};

struct Kernels {
  const char* name;
  Pass<ForwardCall> forward;
  Pass<GradInputCall> grad_input;
};

const Kernels& avx512_kernels();
const Kernels& avx512_narrow_kernels();
const Kernels& avx2_kernels();
const Kernels& portable_kernels();

}  // namespace addertrain::cpu
