// What the torch side asks of the norm's launchers, in plain C++ types (see launchers.h). Images are channels-last and
// dense, in float32 or 16 bits; a channel's numbers are float32.
#pragma once

#include "csrc/cuda/launchers.h"

namespace addertrain::cuda {

struct NormCall {
  Type type;
  int64_t rows;  // N*H*W
  int columns;   // C
  const void* x;
  const float *weight, *bias;
  double eps;
  bool relu;
  float *mean, *var;  // the forward writes them, the gradient reads them
};

struct NormForwardCall : NormCall {
  const double* sums;  // [2][C]: sum and sum of squares of x
  void* y;
};

struct NormBackwardCall : NormCall {
  const void* dy;
  void* dx;
  float *dweight, *dbias;
};

int64_t workspace_bytes(const NormForwardCall& call);
int64_t workspace_bytes(const NormBackwardCall& call);

// Queue the work on `stream` and return the launch's error. At least one row; the caller has set the device.
cudaError_t batch_norm_relu_of_sums_cuda(const NormForwardCall& call, void* workspace, cudaStream_t stream);
cudaError_t batch_norm_relu_backward_cuda(const NormBackwardCall& call, void* workspace, cudaStream_t stream);

}  // namespace addertrain::cuda
