// Which kernel serves a call: tiles for float32 and 16 bits, the direct kernel for float64 and for what is_tiled
// refuses (docs/cuda.md lists both).
#include "csrc/cuda/direct.h"
#include "csrc/cuda/plan.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {
namespace {

bool has_tiles(const ForwardCall& call) {
  return call.type != Type::kFloat64 && is_tiled(call.layer, call.x.strides);
}
bool has_tiles(const GradInputCall& call) {
  return call.type != Type::kFloat64 && is_tiled_grad(call.layer, call.dy.strides);
}

}  // namespace

int64_t workspace_bytes(const ForwardCall& call) {
  if (!has_tiles(call)) return 0;
  return call.type == Type::kFloat32 ? forward_f32_bytes(call) : forward_pairs_bytes(call);
}

int64_t workspace_bytes(const GradInputCall& call) {
  if (!has_tiles(call)) return 0;
  return call.type == Type::kFloat32 ? grad_input_f32_bytes(call) : grad_input_pairs_bytes(call);
}

cudaError_t adder2d_cuda(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  if (!has_tiles(call)) return direct_forward(call, stream);
  return call.type == Type::kFloat32 ? forward_f32(call, workspace, stream) : forward_pairs(call, workspace, stream);
}

cudaError_t adder2d_grad_input_cuda(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  if (!has_tiles(call)) return direct_grad_input(call, stream);
  return call.type == Type::kFloat32 ? grad_input_f32(call, workspace, stream)
                                     : grad_input_pairs(call, workspace, stream);
}

}  // namespace addertrain::cuda
