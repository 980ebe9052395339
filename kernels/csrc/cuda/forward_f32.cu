// The float32 forward.
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"
#include "csrc/cuda/launch_words.h"

namespace addertrain::cuda {
namespace {

TypedCall<float> typed_call(const ForwardCall& call) {
  return typed<float>(call, call.offset_free ? ColumnTerm::kMagnitude : ColumnTerm::kNone);
}

}  // namespace

int64_t forward_f32_bytes(const ForwardCall& call) { return words_workspace_bytes<ForwardTiles>(typed_call(call)); }

cudaError_t forward_f32(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  return launch_words<ForwardTiles, ForwardF32>(typed_call(call), workspace, stream);
}

}  // namespace addertrain::cuda
