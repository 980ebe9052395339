// Convolutions of 16-bit words on CPUs: allocation, layout and threads around the kernels of int8/words.h.
#include "csrc/cpu/dispatch.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "csrc/cpu/operators/packed_filters.h"

namespace addertrain::cpu {
namespace {

constexpr float kMostWord = 4095.0f;  // MOST_X of ops/int16.py
constexpr const char* kNumbers =
    "conv2d_int16: expected scale and shift as contiguous float32 vectors of one number a filter";

Tensor conv2d_int16_pack(const Tensor& w) {
  STD_TORCH_CHECK(w.dim() == 4 && w.scalar_type() == ScalarType::Short,
                  "conv2d_int16_pack: expected w_ocrs in int16 with 4 dimensions");
  return pack_filters<int16_t>(byte_kernels().words, layer_of_filters(w), w);
}

// The images as words with their padding.
Tensor words_of(const Layer& d, const Tensor& given, float factor) {
  const WordKernels& kernels = byte_kernels().words;
  const Tensor x = channels_last(given);
  Tensor words = torch::stable::empty({kernels.num_words(d)}, ScalarType::Short, std::nullopt, x.device());
  const float* from = x.const_data_ptr<float>();
  int16_t* to = words.mutable_data_ptr<int16_t>();
  const int64_t rows = d.N * (d.H + 2 * d.padding_h);
  torch::stable::parallel_for(0, rows, grain_of(kPackGrain, rows, x.numel()), [&](int64_t begin, int64_t end) {
    kernels.pad(d, from, factor, kMostWord, begin, end, to);
  });
  return words;
}

Tensor conv2d_int16(const Tensor& x, const Tensor& w, const Tensor& packed, Sizes stride, Sizes padding, double factor,
                    const Tensor& scale, const Tensor& shift, std::optional<double> low) {
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float && w.dim() == 4 && w.size(1) == x.size(1) &&
                      stride.size() == 2 && padding.size() == 2,
                  "conv2d_int16: expected x_nchw in float32, w_ocrs of the same C, and two numbers each for stride and "
                  "padding");
  STD_TORCH_CHECK(least(stride) >= 1 && least(padding) >= 0, "conv2d_int16: expected stride >= 1 and padding >= 0");
  STD_TORCH_CHECK(!low || (*low >= 0 && *low <= 255), "conv2d_int16: expected low within 0 .. 255");
  Layer d = layer_of_filters(w);
  d.N = x.size(0), d.H = x.size(2), d.W = x.size(3);
  d.stride_h = stride[0], d.stride_w = stride[1], d.padding_h = padding[0], d.padding_w = padding[1];
  d.dilation_h = d.dilation_w = 1;
  d.P = (d.H + 2 * d.padding_h - d.R) / d.stride_h + 1, d.Q = (d.W + 2 * d.padding_w - d.S) / d.stride_w + 1;
  STD_TORCH_CHECK(d.H + 2 * d.padding_h >= d.R && d.W + 2 * d.padding_w >= d.S,
                  "conv2d_int16: expected filters that fit into the padded image");
  check_packed(byte_kernels().words, d, packed, "conv2d_int16");
  Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, low ? ScalarType::Byte : ScalarType::Float, std::nullopt,
                                  x.device(), std::nullopt, MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  const Tensor words = words_of(d, x, static_cast<float>(factor));
  WordCall call{};
  call.layer = d;
  call.words = words.const_data_ptr<int16_t>();
  call.packed = behind_head(packed);
  call.scale = floats_of(scale, x, d.O, kNumbers), call.shift = floats_of(shift, x, d.O, kNumbers);
  if (low) call.bytes = y.mutable_data_ptr<uint8_t>(), call.low = static_cast<float>(*low);
  else call.numbers = y.mutable_data_ptr<float>();
  const WordKernels& kernels = byte_kernels().words;
  const int64_t units = kernels.num_units(d);
  torch::stable::parallel_for(0, units, grain_of(4 * kComputeGrain, units, elements(d)), [&](int64_t begin, int64_t end) {
    kernels.compute(call, begin, end);
  });
  return y;
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("conv2d_int16_pack", TORCH_BOX(&addertrain::cpu::conv2d_int16_pack));
  m.impl("conv2d_int16", TORCH_BOX(&addertrain::cpu::conv2d_int16));
}
