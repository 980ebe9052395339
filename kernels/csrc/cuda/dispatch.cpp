// Which kernel serves a call: tiles for float32 and 16 bits, the direct kernel for float64 and for what does
// not fit tiles (docs/cuda.md lists both).
#include "csrc/cuda/direct.h"
#include "csrc/cuda/plan.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {
namespace {

bool is_tiled(const GradInputCall& call) {
  return call.type != Type::kFloat64 && fits_grad_tiles(call.layer, call.dy.strides);
}

}  // namespace

bool is_tiled(const ForwardCall& call) {
  return call.type != Type::kFloat64 && fits_forward_tiles(call.layer, call.x.strides);
}

int64_t workspace_bytes(const ForwardCall& call) {
  if (!is_tiled(call)) return 0;
  return call.type == Type::kFloat32 ? forward_f32_bytes(call) : forward_pairs_bytes(call);
}

int64_t workspace_bytes(const GradInputCall& call) {
  if (!is_tiled(call)) return 0;
  return call.type == Type::kFloat32 ? grad_input_f32_bytes(call) : grad_input_pairs_bytes(call);
}

cudaError_t adder2d_cuda(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  if (!is_tiled(call)) return direct_forward(call, stream);
  return call.type == Type::kFloat32 ? forward_f32(call, workspace, stream) : forward_pairs(call, workspace, stream);
}

cudaError_t adder2d_grad_input_cuda(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  if (!is_tiled(call)) return direct_grad_input(call, stream);
  return call.type == Type::kFloat32 ? grad_input_f32(call, workspace, stream)
                                     : grad_input_pairs(call, workspace, stream);
}

}  // namespace addertrain::cuda
