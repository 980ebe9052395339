// The launches around a contraction, whatever its arithmetic: packing before it, second passes after it.
#pragma once

#include <type_traits>

#include "csrc/cuda/launchers.h"
#include "csrc/cuda/plan.h"
#include "device/pack.h"
#include "device/reduce.h"

namespace addertrain::cuda {

// A pass in the types of its kernels.
template <class T, class Out = T>
struct TypedCall {
  Problem problem;
  const T* a;               // X, or dY
  const T* w;
  const Out* x;             // input gradient: where HT is taken
  Out* out;
  ImageStrides a_strides, w_strides, x_strides;
  int R, S;
  ColumnTerm term;
  Evaluation evaluation;
  double* sums;
  float power = 1.0f;
};

template <class T>
TypedCall<T> typed(const ForwardCall& call, ColumnTerm term) {
  const Layer& d = call.layer;
  return {forward_problem(d, call.x.strides, call.y.strides),
          static_cast<const T*>(call.x.data),
          static_cast<const T*>(call.w.data),
          nullptr,
          static_cast<T*>(call.y.data),
          call.x.strides,
          call.w.strides,
          {},
          static_cast<int>(d.R),
          static_cast<int>(d.S),
          term,
          call.evaluation,
          call.sums,
          static_cast<float>(call.power)};
}

template <class T>
TypedCall<T> typed(const GradInputCall& call) {
  const Layer& d = call.layer;
  return {grad_input_problem(d, call.dy.strides, call.dx.strides),
          static_cast<const T*>(call.dy.data),
          static_cast<const T*>(call.w.data),
          static_cast<const T*>(call.x.data),
          static_cast<T*>(call.dx.data),
          call.dy.strides,
          call.w.strides,
          call.x.strides,
          static_cast<int>(d.R),
          static_cast<int>(d.S),
          call.power == 1.0 ? ColumnTerm::kNan : ColumnTerm::kNone,
          {},
          nullptr,
          static_cast<float>(call.power)};
}

// The parts of a workspace.
template <class T>
struct Workspace {
  T* packed;
  float *column, *partial, *statistics;
  Scale* scale;

  Workspace(void* bytes, const Plan& plan) {
    auto at = [bytes](int64_t offset) { return static_cast<void*>(static_cast<unsigned char*>(bytes) + offset); };
    packed = static_cast<T*>(at(0)), column = static_cast<float*>(at(plan.column));
    partial = static_cast<float*>(at(plan.partial)), statistics = static_cast<float*>(at(plan.statistics));
    scale = static_cast<Scale*>(at(plan.scale));
  }
};

template <class T, class Out>
Epilogue<Out> epilogue_of(const TypedCall<T, Out>& call, const Plan& plan, const Workspace<T>& workspace) {
  const Evaluation& e = call.evaluation;
  return {workspace.column, e.scale, e.shift, static_cast<const Out*>(e.residual), e.relu,
          plan.splits > 1 ? workspace.partial : nullptr, call.sums ? workspace.statistics : nullptr};
}

// Packs the filters, as `Packed`, and sums each column's.
template <class T, Pass kPass, bool kColumnsInside, class Packed = T, class Out>
cudaError_t launch_packing(const TypedCall<T, Out>& call, const Plan& plan, const Workspace<T>& workspace,
                           cudaStream_t stream) {
  const Problem& p = call.problem;
  const int phases = p.phases_h * p.phases_w;
  static_assert(sizeof(Packed) == sizeof(T));
  const PackParams<T, Packed> pack{p, call.w, call.w_strides, reinterpret_cast<Packed*>(workspace.packed),
                                   plan.phase_size, plan.steps, plan.pitch};
  if (plan.phase_size > 0) {
    const dim3 grid(num_blocks(plan.phase_size, kPackThreads), 1, phases);
    const auto kernel = adder_pack_kernel<T, Packed, kPass, kColumnsInside>;
    const cudaError_t error = launch(kernel, grid, kPackThreads, 0, stream, pack);
    if (error != cudaSuccess) return error;
  }
  const bool is_forward = kPass == Pass::kForward;
  const ImageStrides& w = call.w_strides;
  // Words of bytes have no sums of their own: without a term no filter is read.
  using Summed = std::conditional_t<std::is_same_v<T, uint32_t>, float, T>;
  const ColumnParams<Summed> columns{reinterpret_cast<const Summed*>(call.w),
                                     is_forward ? w.n : w.c,
                                     is_forward ? w.c : w.n,
                                     w.h,
                                     w.w,
                                     p.channels,
                                     call.R,
                                     call.S,
                                     call.term,
                                     workspace.column,
                                     call.power};
  return launch(adder_column_kernel<Summed>, dim3(p.columns), kColumnThreads, kColumnThreads * 8, stream, columns);
}

template <class T, class Out>
cudaError_t launch_second_passes(const TypedCall<T, Out>& call, const Plan& plan, const Workspace<T>& workspace,
                                 cudaStream_t stream) {
  if (plan.splits > 1) {
    const SplitParams<Out> split{call.problem, epilogue_of(call, plan, workspace), call.out, plan.outputs, plan.splits};
    const int columns = call.problem.columns;
    const dim3 grid(num_blocks(plan.outputs / columns, kSplitRows), num_blocks(columns, kSplitLanes));
    const cudaError_t error =
        launch(adder_split_kernel<Out>, grid, kSplitLanes * kSplitSlots, 0, stream, split);
    if (error != cudaSuccess) return error;
  }
  if (call.sums) {
    const StatisticsParams statistics{workspace.statistics, plan.rows, plan.part_rows, plan.slots,
                                      call.problem.columns, call.sums};
    const dim3 grid(num_blocks(call.problem.columns, kStatisticsColumns));
    const int threads = kStatisticsColumns * kStatisticsRows;
    const auto kernel = adder_statistics_kernel<kStatisticsColumns, kStatisticsRows>;
    return launch(kernel, grid, threads, 2 * threads * 8, stream, statistics);
  }
  return cudaSuccess;
}

// Whether channels lie side by side, 16 bytes of them at a time, each such vector aligned.
template <class T>
bool has_vectors(const T* data, const ImageStrides& s, int64_t channels) {
  constexpr int64_t kSize = 16 / sizeof(T);
  return s.c == 1 && channels % kSize == 0 && s.n % kSize == 0 && s.h % kSize == 0 && s.w % kSize == 0 &&
         reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// How the result, or an image of its shape, is reached.
template <class T>
Access access_of(const T* data, const ImageStrides& s, const Problem& p) {
  const bool is_dense = p.phases_h * p.phases_w == 1 && s.c == 1 && s.w == p.columns &&
                        s.h == int64_t{p.out_w} * p.columns && s.n == int64_t{p.out_h} * p.out_w * p.columns;
  return {has_vectors(data, s, p.columns), is_dense};
}

template <class Word, class T, class Out>
ContractParams<Word, Out> contract_params(const TypedCall<T, Out>& call, const Plan& plan,
                                          const Workspace<T>& workspace, int b_pitch) {
  const Problem& p = call.problem;
  Access out = access_of(call.out, p.out, p);
  out.is_vector &= reinterpret_cast<uintptr_t>(call.evaluation.residual) % 16 == 0;
  return {p,
          reinterpret_cast<const Word*>(call.a),
          reinterpret_cast<const Word*>(workspace.packed),
          call.x,
          call.out,
          call.x_strides,
          access_of(call.x, call.x_strides, p),
          out,
          epilogue_of(call, plan, workspace),
          plan.phase_size,
          b_pitch,
          plan.tiles_n,
          plan.slabs_per_split,
          plan.outputs,
          nullptr,
          call.power};
}

}  // namespace addertrain::cuda
