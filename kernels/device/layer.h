// Sizes of an adder layer, or of one group of it: N batch, C channels in, H W input, O filters, R S filter, P Q output.
#pragma once

#include <cstdint>

namespace addertrain {

struct Layer {
  int64_t N, C, H, W;
  int64_t O, R, S;
  int64_t P, Q;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;
};

// Distances in elements between neighbours along each axis of an image tensor: any dense or strided layout.
struct ImageStrides {
  int64_t n, c, h, w;
};

}  // namespace addertrain
