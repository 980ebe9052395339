// What a stride does to the input gradient, on GPUs and CPUs alike.
//
// Output p reads input h through tap r of an axis where h + padding = p*stride + r*dilation. The inputs
// h = first + i*stride with i = 0, 1, ... are one phase of the stride: a tap leads from all of them to outputs, or from
// none,
//
//   p = i + shift(r),   shift(r) = (first + padding - r*dilation) / stride, where that leaves no remainder.
//
// So a phase is a problem of stride 1, and no tap is visited in vain, whatever the stride, padding and dilation.
#pragma once

#include <cstdint>

namespace addertrain {

// One axis of one phase.
struct StridePhase {
  int64_t first;  // its first input
  int64_t stride, padding, dilation;

  // How many of its inputs lie before `end`.
  int64_t inputs_before(int64_t end) const { return first < end ? (end - first + stride - 1) / stride : 0; }

  // Whether `tap` leads to outputs; input i then goes to output i + shift, which may lie outside the response.
  bool find_shift(int64_t tap, int64_t& shift) const {
    const int64_t scaled = first + padding - tap * dilation;
    if (scaled % stride != 0) return false;
    shift = scaled / stride;
    return true;
  }
};

}  // namespace addertrain
