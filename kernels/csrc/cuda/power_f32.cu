// The response and the input gradient with the p-th power of the distance in float32, 1 < p < 2.
#include "csrc/cuda/launch_words.h"
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {
namespace {

TypedCall<float> typed_power(const ForwardCall& call) {
  return typed<float>(call, call.offset_free ? ColumnTerm::kPower : ColumnTerm::kNone);
}

}  // namespace

int64_t power_forward_f32_bytes(const ForwardCall& call) {
  return words_workspace_bytes<ForwardTiles>(typed_power(call));
}

cudaError_t power_forward_f32(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  return launch_words<ForwardTiles, PowerForwardF32>(typed_power(call), workspace, stream);
}

int64_t power_grad_input_f32_bytes(const GradInputCall& call) {
  return words_workspace_bytes<GradInputTiles>(typed<float>(call));
}

cudaError_t power_grad_input_f32(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  return launch_words<GradInputTiles, PowerGradInputF32>(typed<float>(call), workspace, stream);
}

}  // namespace addertrain::cuda
