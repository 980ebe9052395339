// The float32 input gradient.
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"
#include "csrc/cuda/launch_words.h"

namespace addertrain::cuda {

int64_t grad_input_f32_bytes(const GradInputCall& call) {
  return words_workspace_bytes<GradInputTiles>(typed<float>(call));
}

cudaError_t grad_input_f32(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  return launch_words<GradInputTiles, GradInputF32>(typed<float>(call), workspace, stream);
}

}  // namespace addertrain::cuda
