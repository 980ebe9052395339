// Plans and launches a pass on the word kernel.
#pragma once

#include "csrc/cuda/passes.h"
#include "device/contract.h"

namespace addertrain::cuda {

template <class P, class Word, class Out>
Plan plan_words(const TypedCall<Word, Out>& call) {
  const TileSizes tile{P::BM, P::BN, P::kSlab, StagedTile<P::BM, P::BN, P::kThreads>::kSlots};
  return make_plan(call.problem, tile, sizeof(Word), call.sums != nullptr);
}

// Four neighbouring channels share a tap, so one address and one predicate serve four copies.
template <class Word, class Out>
bool is_vector(const TypedCall<Word, Out>& call) {
  return call.a_strides.c == 1 && call.problem.channels % 4 == 0;
}

template <class P, class Op, bool kVector>
cudaError_t run_words(const TypedCall<typename Op::Word, typename Op::Out>& call, void* bytes, cudaStream_t stream) {
  using Word = typename Op::Word;
  const Plan plan = plan_words<P>(call);
  const Workspace<Word> workspace(bytes, plan);
  constexpr Pass kPass = !Op::kIsGrad ? Pass::kForward : Op::kIsSaturated ? Pass::kGradInput : Pass::kPowerGradInput;
  cudaError_t error = launch_packing<Word, kPass, true>(call, plan, workspace, stream);
  if (error != cudaSuccess) return error;

  const Problem& p = call.problem;
  const auto params = contract_params<typename Op::Word>(call, plan, workspace, plan.pitch);
  const dim3 grid(plan.tiles_m * plan.tiles_n, plan.splits, p.phases_h * p.phases_w);
  error = launch(adder_contract_kernel<P, Op, kVector>, grid, P::kThreads, P::kSharedBytes, stream, params);
  if (error != cudaSuccess) return error;
  return launch_second_passes(call, plan, workspace, stream);
}

// Calls run.operator()<tile, is vector>() for the tile that suits the result's columns.
template <class Tiles, class Run>
auto with_word_tile(const TypedCall<float>& call, Run run) {
  const bool vector = is_vector(call);
  if (call.problem.columns <= 32)
    return vector ? run.template operator()<typename Tiles::Thin, true>()
                  : run.template operator()<typename Tiles::Thin, false>();
  if (call.problem.columns <= 64 || !vector)
    return vector ? run.template operator()<typename Tiles::Narrow, true>()
                  : run.template operator()<typename Tiles::Narrow, false>();
  return run.template operator()<typename Tiles::Wide, true>();
}

template <class Tiles>
int64_t words_workspace_bytes(const TypedCall<float>& call) {
  return with_word_tile<Tiles>(call, [&]<class P, bool kVector>() { return plan_words<P>(call).bytes; });
}

template <class Tiles, class Op>
cudaError_t launch_words(const TypedCall<float>& call, void* workspace, cudaStream_t stream) {
  return with_word_tile<Tiles>(
      call, [&]<class P, bool kVector>() { return run_words<P, Op, kVector>(call, workspace, stream); });
}

}  // namespace addertrain::cuda
