// Finds what brings a bfloat16 dY into float16's range (device/scale.h).
#pragma once

#include <cuda_runtime_api.h>

#include "device/params.h"

namespace addertrain::cuda {

constexpr unsigned kMostMaxima = 1024;  // blocks that look for the largest
constexpr int64_t kScaleBytes = sizeof(Scale) + 4 * kMostMaxima;

// `problem` is the gradient's, `scale` the first of kScaleBytes of workspace.
cudaError_t launch_scale(const void* dy, const ImageStrides& strides, const Problem& problem, Scale* scale,
                         cudaStream_t stream);

}  // namespace addertrain::cuda
