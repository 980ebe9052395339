// adder2d_int8 on CPUs: allocation, layout and threads around int8/byte_patches.h and, for depthwise layers,
// int8/depthwise_bytes.h.
#include "csrc/cpu/int8/byte_patches.h"
#include "csrc/cpu/int8/depthwise_bytes.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "csrc/tensors.h"

namespace addertrain::cpu {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Dense channels-last bytes, copied only where they are not.
Tensor channels_last(const Tensor& t) {
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3);
  const bool is_dense = t.stride(1) == 1 && t.stride(3) == C && t.stride(2) == W * C && t.stride(0) == H * W * C;
  return is_dense ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

Tensor adder2d_int8(const Tensor& given, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation) {
  const int64_t groups = groups_of(given, w);
  const Layer d = group_of(given, w, stride, padding, dilation);
  STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "adder2d_int8: expected x and weight in uint8");
  Tensor y = torch::stable::empty({d.N, groups * d.O, d.P, d.Q}, ScalarType::Int, std::nullopt, given.device(),
                                  std::nullopt, MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  if (groups > 1 && DepthwiseByteCall::serves(d)) {
    const Tensor x = channels_last(given);
    const DepthwiseByteCall call(d, groups, x.const_data_ptr<uint8_t>(), w.const_data_ptr<uint8_t>(), strides_of(w));
    int32_t* out = y.mutable_data_ptr<int32_t>();
    const int64_t grain = 1 + (int64_t{1} << 20) / (groups * d.R * d.S);
    torch::stable::parallel_for(0, call.positions(), grain,
                                [&](int64_t begin, int64_t end) { call.compute(begin, end, out); });
    return y;
  }
  if (groups > 1) {
    Tensor x = given, filters = w;
    for (int64_t g = 0; g < groups; ++g) {
      Tensor part = torch::stable::narrow(y, 1, g * d.O, d.O);
      torch::stable::copy_(part, adder2d_int8(torch::stable::narrow(x, 1, g * d.C, d.C),
                                              torch::stable::narrow(filters, 0, g * d.O, d.O), stride, padding,
                                              dilation));
    }
    return y;
  }
  const Tensor x = channels_last(given);
  const ByteCall call(d, x.const_data_ptr<uint8_t>(), w.const_data_ptr<uint8_t>(), strides_of(w));
  int32_t* out = y.mutable_data_ptr<int32_t>();
  const ByteTile tile = best_byte_tile();
  const int64_t grain = 1 + (int64_t{1} << 22) / (kByteRows * d.O * call.pitch);
  torch::stable::parallel_for(0, call.blocks(), grain,
                              [&](int64_t begin, int64_t end) { call.compute(tile, begin, end, out); });
  return y;
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d_int8", TORCH_BOX(&addertrain::cpu::adder2d_int8));
}
