// What the torch side asks of the launcher of sums of squares, in plain C++ types (see launchers.h).
#pragma once

#include <vector>

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

// Values side by side on the device.
struct SquaredTensor {
  Type type;
  const void* values;
  int64_t count;
};

struct SquaresCall {
  std::vector<SquaredTensor> tensors;
  double* sums;  // [tensor]
};

int64_t workspace_bytes(const SquaresCall& call);

// Queues the work on `stream` and returns the launch's error. The caller has set the device.
cudaError_t sums_of_squares_cuda(const SquaresCall& call, void* workspace, cudaStream_t stream);

}  // namespace addertrain::cuda
