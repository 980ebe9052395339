// The l1 distance of bytes, four channels a word.
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/tiled.h"
#include "csrc/cuda/launch_words.h"

namespace addertrain::cuda {
namespace {

// Strides and sizes in words of four neighbouring channels.
TypedCall<uint32_t, int32_t> typed_call(const DistanceCall& call) {
  const auto in_words = [](const ImageStrides& s) { return ImageStrides{s.n / 4, 1, s.h / 4, s.w / 4}; };
  Layer d = call.layer;
  d.C /= 4;
  const ImageStrides x = in_words(call.x.strides);
  return {forward_problem(d, x, call.y.strides),
          static_cast<const uint32_t*>(call.x.data),
          static_cast<const uint32_t*>(call.w.data),
          nullptr,
          static_cast<int32_t*>(call.y.data),
          x,
          in_words(call.w.strides),
          {},
          static_cast<int>(d.R),
          static_cast<int>(d.S),
          ColumnTerm::kNone,
          {},
          nullptr};
}

}  // namespace

bool is_tiled(const DistanceCall& call) {
  const Layer& d = call.layer;
  const auto in_words = [](const Image& image, int64_t N, int64_t H, int64_t W) {
    const ImageStrides& s = image.strides;  // those of sizes of one say nothing
    return s.c == 1 && (N == 1 || s.n % 4 == 0) && (H == 1 || s.h % 4 == 0) && (W == 1 || s.w % 4 == 0) &&
           reinterpret_cast<uintptr_t>(image.data) % 4 == 0;
  };
  return d.C % 4 == 0 && in_words(call.x, d.N, d.H, d.W) && in_words(call.w, d.O, d.R, d.S) &&
         fits_forward_tiles(d, call.x.strides);
}

int64_t workspace_bytes(const DistanceCall& call) { return plan_words<DistanceTile>(typed_call(call)).bytes; }

cudaError_t distance_u8(const DistanceCall& call, void* workspace, cudaStream_t stream) {
  const auto typed = typed_call(call);
  return is_vector(typed) ? run_words<DistanceTile, DistanceU8, true>(typed, workspace, stream)
                          : run_words<DistanceTile, DistanceU8, false>(typed, workspace, stream);
}

}  // namespace addertrain::cuda
