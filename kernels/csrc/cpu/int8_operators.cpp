// adder2d_int8 on CPUs: each output position's patch is gathered as one row of bytes and held against the filters.
#include "csrc/cpu/int8.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <memory>

#include "csrc/tensors.h"

namespace addertrain::cpu {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Dense channels-last bytes, copied only where they are not.
Tensor channels_last(const Tensor& t) {
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3);
  const bool is_dense = t.stride(1) == 1 && t.stride(3) == C && t.stride(2) == W * C && t.stride(0) == H * W * C;
  return is_dense ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

struct Bytes {
  Layer d;
  const uint8_t* x;  // [N][H][W][C]
  int64_t pitch;     // of a row of R*S*C steps

  // The patch of output position m; what lies outside the image is 0.
  void gather(int64_t m, uint8_t* row) const {
    const int64_t q = m % d.Q, p = m / d.Q % d.P, n = m / d.Q / d.P;
    for (int64_t r = 0; r < d.R; ++r) {
      const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
      for (int64_t s = 0; s < d.S; ++s, row += d.C) {
        const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
        const bool is_inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
        if (is_inside) std::memcpy(row, x + ((n * d.H + h) * d.W + v) * d.C, d.C);
        else std::memset(row, 0, d.C);
      }
    }
  }
};

// Filters as rows in the order of a gathered patch, in fours, with zeros behind.
std::unique_ptr<uint8_t[]> packed(const Layer& d, const uint8_t* w, const ImageStrides& strides, int64_t pitch) {
  auto rows = std::make_unique<uint8_t[]>(round_up(d.O, kByteRows) * pitch);
  for (int64_t o = 0; o < d.O; ++o)
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s)
        for (int64_t c = 0; c < d.C; ++c)
          rows[o * pitch + (r * d.S + s) * d.C + c] =
              w[o * strides.n + c * strides.c + r * strides.h + s * strides.w];
  return rows;
}

Tensor adder2d_int8(const Tensor& given, const Tensor& w, Sizes stride, Sizes padding, Sizes dilation) {
  const Layer d = layer_of(given, w, stride, padding, dilation);
  STD_TORCH_CHECK(given.scalar_type() == ScalarType::Byte, "adder2d_int8: expected x and weight in uint8");
  const Tensor y = torch::stable::empty({d.N, d.O, d.P, d.Q}, ScalarType::Int, std::nullopt, given.device(),
                                        std::nullopt, MemoryFormat::ChannelsLast);
  const int64_t positions = d.N * d.P * d.Q, pitch = round_up(d.R * d.S * d.C, kByteStep);
  if (positions * d.O == 0) return y;
  const Tensor x = channels_last(given);
  const Bytes bytes{d, x.const_data_ptr<uint8_t>(), pitch};
  const auto filters = packed(d, w.const_data_ptr<uint8_t>(), strides_of(w), pitch);
  int32_t* out = y.mutable_data_ptr<int32_t>();
  const ByteTile tile = best_byte_tile();

  const int64_t blocks = (positions + kByteRows - 1) / kByteRows;
  const int64_t grain = 1 + (int64_t{1} << 22) / (kByteRows * d.O * pitch);
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    const auto rows = std::make_unique<uint8_t[]>(kByteRows * pitch);
    int32_t sums[kByteRows][kByteRows];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kByteRows, count = std::min<int64_t>(kByteRows, positions - first);
      for (int64_t i = 0; i < count; ++i) bytes.gather(first + i, rows.get() + i * pitch);
      for (int64_t o = 0; o < d.O; o += kByteRows) {
        tile(rows.get(), filters.get() + o * pitch, pitch, sums);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t j = 0; j < std::min<int64_t>(kByteRows, d.O - o); ++j)
            out[(first + i) * d.O + o + j] = sums[i][j];
      }
    }
  });
  return y;
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("adder2d_int8", TORCH_BOX(&addertrain::cpu::adder2d_int8));
}
