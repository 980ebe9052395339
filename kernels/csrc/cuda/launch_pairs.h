// Plans and launches a pass on the tensor cores' kernel.
#pragma once

#include "csrc/cuda/passes.h"
#include "csrc/cuda/scale.h"
#include "device/contract_pairs.h"

namespace addertrain::cuda {

template <class P, bool kIsGrad, class T>
Plan plan_pairs(const TypedCall<T>& call) {
  const TileSizes tile{P::BM, P::BN, P::kSlab, StagedTile<P::BM, P::BN, P::kThreads>::kSlots};
  return make_plan(call.problem, tile, sizeof(T), call.sums != nullptr, kIsScaled<T, kIsGrad> ? kScaleBytes : 0);
}

template <class P, class T, bool kIsGrad, bool kVector>
cudaError_t run_pairs(const TypedCall<T>& call, void* bytes, cudaStream_t stream) {
  const Plan plan = plan_pairs<P, kIsGrad>(call);
  const Workspace<T> workspace(bytes, plan);
  constexpr Pass kPass = kIsGrad ? Pass::kGradInput : Pass::kForward;
  cudaError_t error = launch_packing<T, kPass, false, ElementType<T, kIsGrad>>(call, plan, workspace, stream);
  if (error != cudaSuccess) return error;

  const Problem& p = call.problem;
  auto params = contract_params<uint16_t>(call, plan, workspace, plan.steps);
  if constexpr (kIsScaled<T, kIsGrad>) {
    error = launch_scale(call.a, call.a_strides, p, workspace.scale, stream);
    if (error != cudaSuccess) return error;
    params.g_scale = workspace.scale;
  }
  const dim3 grid(plan.tiles_m * plan.tiles_n, plan.splits, p.phases_h * p.phases_w);
  error = launch(adder_contract_pairs_kernel<P, T, kIsGrad, kVector>, grid, P::kThreads, P::kSharedBytes, stream,
                 params);
  if (error != cudaSuccess) return error;
  return launch_second_passes(call, plan, workspace, stream);
}

// Calls run.operator()<tile, is vector>() for the tile that suits the result's columns.
template <class Tiles, class T, class Run>
auto with_pair_tile(const TypedCall<T>& call, Run run) {
  if (!has_vectors(call.a, call.a_strides, call.problem.channels))
    return run.template operator()<typename Tiles::Any, false>();
  if (call.problem.columns <= 32) return run.template operator()<typename Tiles::Thin, true>();
  // A large tile that leaves multiprocessors idle loses more than a smaller one costs.
  const int64_t wide_blocks = num_blocks_of(call.problem, Tiles::Wide::BM, Tiles::Wide::BN);
  if (call.problem.columns <= 64 || wide_blocks < kEnoughBlocks)
    return run.template operator()<typename Tiles::Narrow, true>();
  return run.template operator()<typename Tiles::Wide, true>();
}

template <class Tiles, bool kIsGrad, class T>
int64_t pairs_workspace_bytes(const TypedCall<T>& call) {
  return with_pair_tile<Tiles>(call, [&]<class P, bool kVector>() { return plan_pairs<P, kIsGrad>(call).bytes; });
}

template <class Tiles, bool kIsGrad, class T>
cudaError_t launch_pairs(const TypedCall<T>& call, void* workspace, cudaStream_t stream) {
  return with_pair_tile<Tiles>(
      call, [&]<class P, bool kVector>() { return run_pairs<P, T, kIsGrad, kVector>(call, workspace, stream); });
}

}  // namespace addertrain::cuda
