// Convolutions of 16-bit words on CPUs: allocation, layout and threads around the kernels of int8/words.h.
#include "csrc/cpu/dispatch.h"

#include <torch/csrc/stable/library.h>

#include <cstring>
#include <optional>

#include "csrc/cpu/operators/dense_calls.h"

namespace addertrain::cpu {
namespace {

constexpr float kMostWord = 4095.0f;  // MOST_X of ops/int16.py

// Before packed filters: how they lie, so that kernels of another instruction set refuse them.
struct WordHead {
  int64_t lanes, O, C, R, S;
  bool operator==(const WordHead&) const = default;
};
constexpr int64_t kHeadBytes = 64;  // what lies behind it stays aligned

WordHead head_of(const Layer& d) { return {byte_kernels().words.lanes, d.O, d.C, d.R, d.S}; }

Tensor conv2d_int16_pack(const Tensor& w) {
  STD_TORCH_CHECK(w.dim() == 4 && w.scalar_type() == ScalarType::Short,
                  "conv2d_int16_pack: expected w_ocrs in int16 with 4 dimensions");
  Layer d{};
  d.O = w.size(0), d.C = w.size(1), d.R = w.size(2), d.S = w.size(3);
  const WordKernels& kernels = byte_kernels().words;
  Tensor packed = torch::stable::empty({kHeadBytes + kernels.packed_bytes(d)}, ScalarType::Byte, std::nullopt, w.device());
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  const WordHead head = head_of(d);
  std::memcpy(to, &head, sizeof head);
  const int16_t* from = w.const_data_ptr<int16_t>();
  const int64_t blocks = kernels.num_blocks(d);
  torch::stable::parallel_for(0, blocks, grain_of(kPackGrain, blocks, w.numel()), [&](int64_t begin, int64_t end) {
    kernels.pack(d, from, strides_of(w), begin, end, to + kHeadBytes);
  });
  return packed;
}

void check_packed(const Layer& d, const Tensor& packed) {
  WordHead head{};
  const bool is_whole = packed.dim() == 1 && packed.scalar_type() == ScalarType::Byte && packed.is_contiguous() &&
                        packed.size(0) == kHeadBytes + byte_kernels().words.packed_bytes(d);
  if (is_whole) std::memcpy(&head, packed.const_data_ptr<uint8_t>(), sizeof head);
  STD_TORCH_CHECK(head == head_of(d),
                  "conv2d_int16: expected filters of this shape, packed by conv2d_int16_pack for the instruction set in "
                  "use; pack them again");
}

// `numbers` as floats, one a filter.
const float* floats_of(const Tensor& numbers, const Layer& d) {
  STD_TORCH_CHECK(numbers.dim() == 1 && numbers.size(0) == d.O && numbers.scalar_type() == ScalarType::Float &&
                      numbers.is_contiguous(),
                  "conv2d_int16: expected scale and shift as contiguous float32 vectors of one number a filter");
  return numbers.const_data_ptr<float>();
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
  STD_TORCH_CHECK(!low || (*low >= 0 && *low <= 255), "conv2d_int16: expected low within 0 .. 255");
  Layer d{};
  d.N = x.size(0), d.C = w.size(1), d.H = x.size(2), d.W = x.size(3), d.O = w.size(0), d.R = w.size(2), d.S = w.size(3);
  d.stride_h = stride[0], d.stride_w = stride[1], d.padding_h = padding[0], d.padding_w = padding[1];
  d.dilation_h = d.dilation_w = 1;
  d.P = (d.H + 2 * d.padding_h - d.R) / d.stride_h + 1, d.Q = (d.W + 2 * d.padding_w - d.S) / d.stride_w + 1;
  STD_TORCH_CHECK(d.padding_h >= 0 && d.padding_w >= 0 && d.H + 2 * d.padding_h >= d.R && d.W + 2 * d.padding_w >= d.S,
                  "conv2d_int16: expected filters that fit into the padded image");
  check_packed(d, packed);
  Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, low ? ScalarType::Byte : ScalarType::Float, std::nullopt,
                                  x.device(), std::nullopt, MemoryFormat::ChannelsLast);
  if (y.numel() == 0) return y;
  const Tensor words = words_of(d, x, static_cast<float>(factor));
  WordCall call{};
  call.layer = d;
  call.words = words.const_data_ptr<int16_t>();
  call.packed = packed.const_data_ptr<uint8_t>() + kHeadBytes;
  call.scale = floats_of(scale, d), call.shift = floats_of(shift, d);
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
