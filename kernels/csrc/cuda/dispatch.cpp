// Which kernel serves a call: tiles for float32 and 16 bits, the direct kernel for float64 and for what does
// not fit tiles (docs/cuda.md lists both). Large groups take turns on the tiles. Small ones, which would leave most of
// a tile empty, share one launch: of depthwise layers' own kernel if it serves them, otherwise of the direct kernel.
#include "csrc/cuda/depthwise.h"
#include "csrc/cuda/direct.h"
#include "csrc/cuda/plan.h"
#include "csrc/cuda/tiled.h"

namespace addertrain::cuda {
namespace {

constexpr int64_t kLargeGroup = 32;  // channels and filters of it, each

bool fills_tiles(const Layer& d, int64_t groups) {
  return groups == 1 || (d.C >= kLargeGroup && d.O >= kLargeGroup);
}

// Powers have tiles in float32 alone, which is what autocast gives them.
template <class Call>
bool has_tiles_of_type(const Call& call) {
  return call.power == 1.0 ? call.type != Type::kFloat64 : call.type == Type::kFloat32;
}

bool has_tiles(const ForwardCall& call) {
  return has_tiles_of_type(call) && fills_tiles(call.layer, call.groups) &&
         fits_forward_tiles(call.layer, call.x.strides);
}

bool has_tiles(const GradInputCall& call) {
  return has_tiles_of_type(call) && fills_tiles(call.layer, call.groups) &&
         fits_grad_tiles(call.layer, call.dy.strides);
}

int64_t bytes_of(Type type) { return type == Type::kFloat64 ? 8 : type == Type::kFloat32 ? 4 : 2; }

Image moved(const Image& image, int64_t elements, Type type) {
  return {static_cast<const char*>(image.data) + elements * bytes_of(type), image.strides};
}
Result moved(const Result& result, int64_t elements, Type type) {
  return {static_cast<char*>(result.data) + elements * bytes_of(type), result.strides};
}

// One group of a call: the same strides, from its first channel and filter on.
ForwardCall group_of(const ForwardCall& call, int64_t group) {
  const Layer& d = call.layer;
  ForwardCall one = call;
  one.groups = 1;
  one.x = moved(call.x, group * d.C * call.x.strides.c, call.type);
  one.w = moved(call.w, group * d.O * call.w.strides.n, call.type);
  one.y = moved(call.y, group * d.O * call.y.strides.c, call.type);
  return one;
}

GradInputCall group_of(const GradInputCall& call, int64_t group) {
  const Layer& d = call.layer;
  GradInputCall one = call;
  one.groups = 1;
  one.dy = moved(call.dy, group * d.O * call.dy.strides.c, call.type);
  one.x = moved(call.x, group * d.C * call.x.strides.c, call.type);
  one.w = moved(call.w, group * d.O * call.w.strides.n, call.type);
  one.dx = moved(call.dx, group * d.C * call.dx.strides.c, call.type);
  return one;
}

// The groups of a call one after the other on its stream; they use the workspace in turn.
template <class Call, class Run>
cudaError_t run_groups(const Call& call, const Run& run) {
  for (int64_t group = 0; group < call.groups; ++group) {
    const cudaError_t error = run(group_of(call, group));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

bool is_tiled(const ForwardCall& call) { return call.groups == 1 && has_tiles(call); }

int64_t workspace_bytes(const ForwardCall& call) {
  if (!has_tiles(call)) return 0;
  if (call.power != 1.0) return power_forward_f32_bytes(call);
  return call.type == Type::kFloat32 ? forward_f32_bytes(call) : forward_pairs_bytes(call);
}

int64_t workspace_bytes(const GradInputCall& call) {
  if (!has_tiles(call)) return 0;
  if (call.power != 1.0) return power_grad_input_f32_bytes(call);
  return call.type == Type::kFloat32 ? grad_input_f32_bytes(call) : grad_input_pairs_bytes(call);
}

cudaError_t adder2d_cuda(const ForwardCall& call, void* workspace, cudaStream_t stream) {
  if (!has_tiles(call)) return is_depthwise(call) ? depthwise_forward(call, stream) : direct_forward(call, stream);
  const auto run = call.power != 1.0               ? power_forward_f32
                   : call.type == Type::kFloat32 ? forward_f32
                                                 : forward_pairs;
  return run_groups(call, [&](const ForwardCall& one) { return run(one, workspace, stream); });
}

cudaError_t adder2d_grad_input_cuda(const GradInputCall& call, void* workspace, cudaStream_t stream) {
  if (!has_tiles(call))
    return is_depthwise(call) ? depthwise_grad_input(call, stream) : direct_grad_input(call, stream);
  const auto run = call.power != 1.0               ? power_grad_input_f32
                   : call.type == Type::kFloat32 ? grad_input_f32
                                                 : grad_input_pairs;
  return run_groups(call, [&](const GradInputCall& one) { return run(one, workspace, stream); });
}

}  // namespace addertrain::cuda
