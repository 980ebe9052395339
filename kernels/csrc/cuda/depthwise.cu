// Which depthwise layers device/depthwise.h serves, and over how many blocks they go.
#include "csrc/cuda/depthwise.h"

#include <algorithm>

#include "csrc/cuda/blocks.h"
#include "csrc/cuda/short_offsets.h"
#include "device/depthwise.h"

namespace addertrain::cuda {
namespace {

// Four times as many as an H200 holds at once. Where more are left, a walk gets longer: its filters are read once.
constexpr int64_t kEnoughWalkBlocks = 2112;
constexpr int64_t kMostSteps = 8;

bool is_depthwise_layer(const Layer& d, int64_t groups, Type type, double power) {
  return d.C == 1 && d.O == 1 && groups % kDepthwiseChannels == 0 && type != Type::kFloat64 && power == 1.0 &&
         d.R == d.S && (d.R == 3 || d.R == 5 || d.R == 7) && d.stride_h == d.stride_w && d.stride_h <= 2 &&
         d.dilation_h == 1 && d.dilation_w == 1;
}

// Whether channels lie side by side, and each vector of a thread's is aligned.
template <class Pixels>
bool has_channel_vectors(const Pixels& image, Type type) {
  const ImageStrides& s = image.strides;
  const uintptr_t bytes = kDepthwiseChannels * (type == Type::kFloat32 ? 4 : 2);
  return s.c == 1 && s.n % kDepthwiseChannels == 0 && s.h % kDepthwiseChannels == 0 &&
         s.w % kDepthwiseChannels == 0 && reinterpret_cast<uintptr_t>(image.data) % bytes == 0;
}

PixelStrides pixel_strides(const ImageStrides& s) {
  return {static_cast<int>(s.n), static_cast<int>(s.h), static_cast<int>(s.w)};
}

// What both passes say alike; the sizes of `source` and `out` and the first tap's place follow.
template <class T, class Call>
DepthwiseParams<T> params_between(const Call& call, const Image& source, const Result& out) {
  DepthwiseParams<T> p{};
  p.source = static_cast<const T*>(source.data), p.source_strides = pixel_strides(source.strides);
  p.w = static_cast<const T*>(call.w.data), p.w_strides = call.w.strides;
  p.out = static_cast<T*>(out.data), p.out_strides = pixel_strides(out.strides);
  p.images = static_cast<int>(call.layer.N), p.channels = static_cast<int>(call.groups);
  return p;
}

template <class T>
DepthwiseParams<T> params_of(const ForwardCall& call) {
  const Layer& d = call.layer;
  auto p = params_between<T>(call, call.x, call.y);
  p.height = static_cast<int>(d.H), p.width = static_cast<int>(d.W);
  p.out_height = static_cast<int>(d.P), p.out_width = static_cast<int>(d.Q);
  p.top = static_cast<int>(d.padding_h), p.left = static_cast<int>(d.padding_w);
  return p;
}

template <class T>
DepthwiseParams<T> params_of(const GradInputCall& call) {
  const Layer& d = call.layer;
  auto p = params_between<T>(call, call.dy, call.dx);
  p.x = static_cast<const T*>(call.x.data), p.x_strides = pixel_strides(call.x.strides);
  p.height = static_cast<int>(d.P), p.width = static_cast<int>(d.Q);
  p.out_height = static_cast<int>(d.H), p.out_width = static_cast<int>(d.W);
  p.top = static_cast<int>(d.R - 1 - d.padding_h), p.left = static_cast<int>(d.S - 1 - d.padding_w);
  return p;
}

// Places the tiles and divides them and the channels among blocks, from sizes alone; returns the number of blocks.
template <class Tile, class T>
int64_t divide_work(DepthwiseParams<T>& p) {
  const int64_t vectors = p.channels / kDepthwiseChannels;
  p.chunks = static_cast<int>(quotient_up(vectors, kDepthwiseLanes));
  p.lanes = static_cast<int>(quotient_up(vectors, p.chunks)), p.walks = kDepthwiseThreads / p.lanes;
  p.first_p = -(p.top & (Tile::kUp - 1)), p.first_q = -(p.left & (Tile::kUp - 1));
  p.columns = static_cast<int>(quotient_up(p.out_width - p.first_q, Tile::kColumns));
  const int64_t rows = quotient_up(p.out_height - p.first_p, Tile::kRows);
  auto blocks = [&](int64_t bands) {
    return quotient_up(int64_t{p.images} * bands * p.columns, p.walks) * p.chunks;
  };
  const int64_t steps = std::clamp<int64_t>(blocks(rows) / kEnoughWalkBlocks, 1, kMostSteps);
  p.bands = static_cast<int>(quotient_up(rows, steps));
  p.steps = static_cast<int>(quotient_up(rows, p.bands));
  return blocks(p.bands);
}

template <class T, class Op, int kTaps, int kStride>
cudaError_t launch_tiles(DepthwiseParams<T> p, cudaStream_t stream) {
  using Tile = DepthwiseTile<Op, kTaps, kStride>;
  const dim3 grid(static_cast<unsigned>(divide_work<Tile>(p)));
  const auto kernel = adder_depthwise_kernel<T, Op, kTaps, kStride>;
  return launch(kernel, grid, kDepthwiseThreads, Tile::kSharedBytes, stream, p);
}

template <class Op, int kStride, class T>
cudaError_t launch_filters(const DepthwiseParams<T>& p, int64_t taps, cudaStream_t stream) {
  switch (taps) {
    case 3: return launch_tiles<T, Op, 3, kStride>(p, stream);
    case 5: return launch_tiles<T, Op, 5, kStride>(p, stream);
    default: return launch_tiles<T, Op, 7, kStride>(p, stream);
  }
}

template <class Op, class T, class Call>
cudaError_t launch_strides(const Call& call, cudaStream_t stream) {
  const Layer& d = call.layer;
  return d.stride_h == 1 ? launch_filters<Op, 1>(params_of<T>(call), d.R, stream)
                         : launch_filters<Op, 2>(params_of<T>(call), d.R, stream);
}

template <class T>
cudaError_t launch_typed(const ForwardCall& call, cudaStream_t stream) {
  return call.offset_free ? launch_strides<DepthwiseResponse<true>, T>(call, stream)
                          : launch_strides<DepthwiseResponse<false>, T>(call, stream);
}

template <class T>
cudaError_t launch_typed(const GradInputCall& call, cudaStream_t stream) {
  return launch_strides<DepthwiseSlope, T>(call, stream);
}

template <class Call>
cudaError_t launch_depthwise(const Call& call, cudaStream_t stream) {
  switch (call.type) {
    case Type::kFloat32: return launch_typed<float>(call, stream);
    case Type::kFloat16: return launch_typed<__half>(call, stream);
    case Type::kBfloat16: return launch_typed<__nv_bfloat16>(call, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace

bool is_depthwise(const ForwardCall& call) {
  return is_depthwise_layer(call.layer, call.groups, call.type, call.power) && is_short_call(call) &&
         has_channel_vectors(call.x, call.type) && has_channel_vectors(call.y, call.type);
}

bool is_depthwise(const GradInputCall& call) {
  return is_depthwise_layer(call.layer, call.groups, call.type, call.power) && is_short_call(call) &&
         has_channel_vectors(call.dy, call.type) && has_channel_vectors(call.x, call.type) &&
         has_channel_vectors(call.dx, call.type);
}

cudaError_t depthwise_forward(const ForwardCall& call, cudaStream_t stream) { return launch_depthwise(call, stream); }

cudaError_t depthwise_grad_input(const GradInputCall& call, cudaStream_t stream) {
  return launch_depthwise(call, stream);
}

}  // namespace addertrain::cuda
