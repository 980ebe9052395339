// The forward in float16 and bfloat16.
#include "csrc/cuda/launch_pairs.h"
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {
namespace {

// The kernel adds up 2 min(x, w) - x; -|x - w| wants -w as well.
template <class T>
TypedCall<T> pairs_call(const ForwardCall& call) {
  return typed<T>(call, call.offset_free ? ColumnTerm::kMagnitudeMinusSum : ColumnTerm::kMinusSum);
}

}  // namespace

int64_t forward_pairs_bytes(const ForwardCall& call) {
  return call.type == Type::kFloat16 ? pairs_workspace_bytes<ForwardPairTiles, false>(pairs_call<__half>(call))
                                     : pairs_workspace_bytes<ForwardPairTiles, false>(pairs_call<__nv_bfloat16>(call));
}

cudaError_t forward_pairs(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  return call.type == Type::kFloat16
             ? launch_pairs<ForwardPairTiles, false>(pairs_call<__half>(call), workspace, stream)
             : launch_pairs<ForwardPairTiles, false>(pairs_call<__nv_bfloat16>(call), workspace, stream);
}

}  // namespace addertrain::cuda
