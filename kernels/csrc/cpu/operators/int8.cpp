// Distances of bytes on CPUs: allocation, layout and threads around the kernels of int8/byte_kernels.h and, for
// depthwise layers, those of int8/depthwise_bytes.h.
#include "csrc/cpu/dispatch.h"
#include "csrc/cpu/int8/depthwise_bytes.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "csrc/cpu/operators/packed_filters.h"

namespace addertrain::cpu {
namespace {

constexpr int64_t kByteGrain = 8 * kComputeGrain;  // elements of bytes take a fraction of the time
constexpr const char* kNumbers =
    "adder2d_int8_norm: expected scale and shift as contiguous float32 vectors of one number a filter";

Tensor pack(const Layer& d, const Tensor& w) { return pack_filters<uint8_t>(byte_kernels(), d, w); }

void check_packed(const Layer& d, const Tensor& packed) { check_packed(byte_kernels(), d, packed, "adder2d_int8"); }

// Fills in x, which is dense and channels-last, and the sums of its pixels, and computes the call.
void compute(ByteCall call, const Tensor& x) {
  const ByteKernels& kernels = byte_kernels();
  const Layer& d = call.layer;
  call.x = x.const_data_ptr<uint8_t>();
  const int64_t num_sums = kernels.num_pixel_sums(d);
  std::optional<Tensor> sums;
  if (num_sums > 0) {
    sums = torch::stable::empty({num_sums}, ScalarType::Int, std::nullopt, x.device());
    int32_t* to = sums->mutable_data_ptr<int32_t>();
    torch::stable::parallel_for(0, num_sums, 1 + (int64_t{1} << 18) / d.C, [&](int64_t begin, int64_t end) {
      kernels.add_up_pixels(d, call.x, begin, end, to);
    });
    call.pixel_sums = to;
  }
  const int64_t units = kernels.num_units(d);
  torch::stable::parallel_for(0, units, grain_of(kByteGrain, units, elements(d)),
                              [&](int64_t begin, int64_t end) { kernels.compute(call, begin, end); });
}

// The sums |x - w| of a layer without groups, whose filters are `packed`.
Tensor distances(const Layer& d, const Tensor& x, const Tensor& packed) {
  Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, ScalarType::Int, std::nullopt, x.device(), std::nullopt,
                                  MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  ByteCall call{};
  call.layer = d;
  call.packed = behind_head(packed);
  call.distances = y.mutable_data_ptr<int32_t>();
  compute(call, channels_last(x));
  return y;
}

Tensor adder2d_int8(const Tensor& given, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation) {
  const int64_t groups = groups_of(given, w);
  const Layer d = group_of(given, w, stride, padding, dilation);
  STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "adder2d_int8: expected x and weight in uint8");
  if (groups == 1) return distances(d, given, pack(d, w));
  Tensor y = torch::stable::empty({d.N, groups * d.O, d.P, d.Q}, ScalarType::Int, std::nullopt, given.device(),
                                  std::nullopt, MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  if (DepthwiseByteCall::serves(d)) {
    const Tensor x = channels_last(given);
    const DepthwiseByteCall call(d, groups, x.const_data_ptr<uint8_t>(), w.const_data_ptr<uint8_t>(), strides_of(w));
    int32_t* out = y.mutable_data_ptr<int32_t>();
    const int64_t grain = 1 + (int64_t{1} << 20) / (groups * d.R * d.S);
    torch::stable::parallel_for(0, call.positions(), grain,
                                [&](int64_t begin, int64_t end) { call.compute(begin, end, out); });
    return y;
  }
  for (int64_t g = 0; g < groups; ++g) {
    Tensor part = channels_of(y, g, d.O);
    torch::stable::copy_(
        part, adder2d_int8(channels_of(given, g, d.C), filters_of(w, g, d.O), stride, padding, dilation));
  }
  return y;
}

Tensor adder2d_int8_packed(const Tensor& given, const Tensor& w, const Tensor& packed, Sizes stride, Sizes padding,
                           Sizes dilation) {
  const Layer d = layer_of(given, w, stride, padding, dilation);
  STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "adder2d_int8_packed: expected x and weight in uint8");
  check_packed(d, packed);
  return distances(d, given, packed);
}

Tensor adder2d_int8_pack(const Tensor& w) {
  STD_TORCH_CHECK(w.dim() == 4 && w.scalar_type() == ScalarType::Byte,
                  "adder2d_int8_pack: expected w_ocrs in uint8 with 4 dimensions");
  return pack(layer_of_filters(w), w);
}

Tensor adder2d_int8_norm(const Tensor& given, const Tensor& w, const Tensor& packed, Sizes stride, Sizes padding,
                         Sizes dilation, int64_t outside, const Tensor& scale, const Tensor& shift,
                         std::optional<Tensor> residual, double residual_scale, double low) {
  const Layer d = layer_of(given, w, stride, padding, dilation);
  STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "adder2d_int8_norm: expected x and weight in uint8");
  STD_TORCH_CHECK(outside >= 0 && outside <= 255 && low >= 0 && low <= 255,
                  "adder2d_int8_norm: expected outside and low within 0 .. 255");
  check_packed(d, packed);
  Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, ScalarType::Byte, std::nullopt, given.device(), std::nullopt,
                                  MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  std::optional<Tensor> added;
  if (residual) {
    STD_TORCH_CHECK(residual->scalar_type() == ScalarType::Byte && have_one_shape(*residual, y),
                    "adder2d_int8_norm: expected a residual in uint8 of the result's shape");
    added = channels_last(*residual);
  }
  ByteCall call{};
  call.layer = d;
  call.outside = static_cast<uint8_t>(outside);
  call.packed = behind_head(packed);
  call.bytes = y.mutable_data_ptr<uint8_t>();
  call.norm = {floats_of(scale, given, d.O, kNumbers), floats_of(shift, given, d.O, kNumbers),
               added ? added->const_data_ptr<uint8_t>() : nullptr, static_cast<float>(residual_scale),
               static_cast<float>(low)};
  compute(call, channels_last(given));
  return y;
}

Tensor quantise_int8(const Tensor& given, double factor, double zero) {
  STD_TORCH_CHECK(given.dim() == 4 && given.scalar_type() == ScalarType::Float,
                  "quantise_int8: expected x_nchw in float32 with 4 dimensions");
  const Tensor x = channels_last(given);
  Tensor bytes = torch::stable::empty({x.size(0), x.size(1), x.size(2), x.size(3)}, ScalarType::Byte, std::nullopt,
                                      x.device(), std::nullopt, MemoryFormat::ChannelsLast);
  const float* from = x.const_data_ptr<float>();
  uint8_t* to = bytes.mutable_data_ptr<uint8_t>();
  const auto quantise = byte_kernels().quantise;
  torch::stable::parallel_for(0, x.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    quantise(from, static_cast<float>(factor), static_cast<float>(zero), begin, end, to);
  });
  return bytes;
}

Tensor max_pool_int8(const Tensor& given, Sizes size, Sizes stride, Sizes padding) {
  STD_TORCH_CHECK(given.dim() == 4 && given.scalar_type() == ScalarType::Byte,
                  "max_pool_int8: expected x_nchw in uint8 with 4 dimensions");
  STD_TORCH_CHECK(size.size() == 2 && stride.size() == 2 && padding.size() == 2 && size[0] > 0 && size[1] > 0 &&
                      stride[0] > 0 && stride[1] > 0 && padding[0] >= 0 && padding[1] >= 0,
                  "max_pool_int8: expected two positive numbers each for size and stride, and two for padding");
  Layer d{};
  d.N = given.size(0), d.C = given.size(1), d.H = given.size(2), d.W = given.size(3);
  d.R = size[0], d.S = size[1], d.stride_h = stride[0], d.stride_w = stride[1];
  d.padding_h = padding[0], d.padding_w = padding[1];
  d.P = (d.H + 2 * d.padding_h - d.R) / d.stride_h + 1, d.Q = (d.W + 2 * d.padding_w - d.S) / d.stride_w + 1;
  STD_TORCH_CHECK(d.H + 2 * d.padding_h >= d.R && d.W + 2 * d.padding_w >= d.S,
                  "max_pool_int8: expected a window that fits into the padded image");
  Tensor y = torch::stable::empty({d.N, d.C, d.P, d.Q}, ScalarType::Byte, std::nullopt, given.device(), std::nullopt,
                                  MemoryFormat::ChannelsLast);
  const Tensor x = channels_last(given);
  const uint8_t* from = x.const_data_ptr<uint8_t>();
  uint8_t* to = y.mutable_data_ptr<uint8_t>();
  const int64_t rows = d.N * d.P, grain = grain_of(kComputeGrain, rows, x.numel());
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    byte_kernels().highest(d, from, begin, end, to);
  });
  return y;
}

Tensor sum_pixels_int8(const Tensor& given) {
  STD_TORCH_CHECK(given.dim() == 4 && given.scalar_type() == ScalarType::Byte,
                  "sum_pixels_int8: expected x_nchw in uint8 with 4 dimensions");
  const int64_t N = given.size(0), C = given.size(1), pixels = given.size(2) * given.size(3);
  Tensor sums = torch::stable::empty({N, C}, ScalarType::Long, std::nullopt, given.device());
  const Tensor x = channels_last(given);
  const uint8_t* from = x.const_data_ptr<uint8_t>();
  int64_t* to = sums.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, N, grain_of(kComputeGrain, N, x.numel()), [&](int64_t begin, int64_t end) {
    byte_kernels().add_up_images(from, pixels, C, begin, end, to);
  });
  return sums;
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d_int8", TORCH_BOX(&addertrain::cpu::adder2d_int8));
  m.impl("adder2d_int8_packed", TORCH_BOX(&addertrain::cpu::adder2d_int8_packed));
  m.impl("adder2d_int8_pack", TORCH_BOX(&addertrain::cpu::adder2d_int8_pack));
  m.impl("adder2d_int8_norm", TORCH_BOX(&addertrain::cpu::adder2d_int8_norm));
  m.impl("quantise_int8", TORCH_BOX(&addertrain::cpu::quantise_int8));
  m.impl("max_pool_int8", TORCH_BOX(&addertrain::cpu::max_pool_int8));
  m.impl("sum_pixels_int8", TORCH_BOX(&addertrain::cpu::sum_pixels_int8));
}
