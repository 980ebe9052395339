// Launches the search for dY's largest magnitude.
#include "device/scale.h"

#include <algorithm>

#include "csrc/cuda/passes.h"
#include "csrc/cuda/scale.h"

namespace addertrain::cuda {

cudaError_t launch_scale(const void* dy, const ImageStrides& s, const Problem& problem, Scale* scale,
                         cudaStream_t stream) {
  const int C = problem.channels, h = problem.vertical[0].source, w = problem.horizontal[0].source;
  const int64_t image = int64_t{C} * h * w, count = problem.images * image;
  const bool is_channels_last = s.c == 1 && s.w == C && s.h == int64_t{w} * C && s.n == image;
  const bool is_contiguous = s.w == 1 && s.h == w && s.c == int64_t{h} * w && s.n == image;
  const bool is_flat = (is_channels_last || is_contiguous) && reinterpret_cast<uintptr_t>(dy) % 16 == 0;

  constexpr int kValuesAThread = 32;
  const unsigned blocks = std::min(num_blocks(count, kValuesAThread * kScaleThreads), kMostMaxima);
  uint32_t* const maxima = reinterpret_cast<uint32_t*>(scale + 1);
  const MagnitudeParams magnitude{static_cast<const uint16_t*>(dy), s, count, C, h, w, is_flat,
                                  int64_t{blocks} * kScaleThreads, maxima};
  const cudaError_t error =
      launch(adder_magnitude_kernel, dim3(blocks), kScaleThreads, kScaleThreads * 4, stream, magnitude);
  if (error != cudaSuccess) return error;
  const ScaleParams params{maxima, static_cast<int>(blocks), scale};
  return launch(adder_scale_kernel, dim3(1), kScaleThreads, kScaleThreads * 4, stream, params);
}

}  // namespace addertrain::cuda
