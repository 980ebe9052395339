// The input gradient in float16 and bfloat16.
#include "csrc/cuda/launch_pairs.h"
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {

int64_t grad_input_pairs_bytes(const GradInputCall& call) {
  return call.type == Type::kFloat16 ? pairs_workspace_bytes<GradInputPairTiles, true>(typed<__half>(call))
                                     : pairs_workspace_bytes<GradInputPairTiles, true>(typed<__nv_bfloat16>(call));
}

cudaError_t grad_input_pairs(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  return call.type == Type::kFloat16
             ? launch_pairs<GradInputPairTiles, true>(typed<__half>(call), workspace, stream)
             : launch_pairs<GradInputPairTiles, true>(typed<__nv_bfloat16>(call), workspace, stream);
}

}  // namespace addertrain::cuda
