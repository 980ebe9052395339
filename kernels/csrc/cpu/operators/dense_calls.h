// What the operators in this folder share: tensors as the kernels' calls want them, and threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>

#include "csrc/cpu/choices.h"
#include "csrc/tensors.h"

namespace addertrain::cpu {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Layout layout_of(MemoryFormat format) {
  return format == MemoryFormat::ChannelsLast ? Layout::kNhwc : Layout::kNchw;
}

// Strides of sizes of one say nothing about where elements lie.
inline bool is_dense_channels_last(const Tensor& t) {
  int64_t pitch = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (t.size(axis) == 1) continue;
    if (t.stride(axis) != pitch) return false;
    pitch *= t.size(axis);
  }
  return true;
}

// The tensor itself where it is dense in one of the two layouts, otherwise a copy in `format`.
inline Tensor dense(const Tensor& t, MemoryFormat format) {
  if (is_dense_channels_last(t) || t.is_contiguous()) return t;
  return torch::stable::contiguous(t, format);
}

inline Tensor channels_last(const Tensor& t) {
  return is_dense_channels_last(t) ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

// The elements of float32 images of any strides, in the order in which a copy that is dense in their layout has them.
class ElementsInOrder {
 public:
  explicit ElementsInOrder(const Tensor& t) : data_(t.const_data_ptr<float>()) {
    const bool is_channels_last = format_of(t) == MemoryFormat::ChannelsLast;
    const std::array<int, 4> axes = is_channels_last ? std::array{1, 3, 2, 0} : std::array{3, 2, 1, 0};
    for (int i = 0; i < 4; ++i) sizes_[i] = t.size(axes[i]), strides_[i] = t.stride(axes[i]);
  }

  float operator[](int64_t place) const {
    int64_t offset = 0;
    for (int i = 0; i < 4; ++i) {
      offset += place % sizes_[i] * strides_[i];
      place /= sizes_[i];
    }
    return data_[offset];
  }

 private:
  const float* data_;
  std::array<int64_t, 4> sizes_, strides_;
};

inline DenseImage image_of(const Tensor& t) {
  return {t.const_data_ptr<float>(), is_dense_channels_last(t) ? Layout::kNhwc : Layout::kNchw};
}

inline FilterOrder order_of(const Tensor& w) {
  return is_dense_channels_last(w) ? FilterOrder::kChannelsInnermost : FilterOrder::kChannelsOutermost;
}

inline bool is_sixteen_bit(const Tensor& t) {
  return t.scalar_type() == ScalarType::Half || t.scalar_type() == ScalarType::BFloat16;
}

inline Tensor convert(const Tensor& t, ScalarType type) { return torch::stable::to(t, type); }

// Waking a thread costs tens of microseconds: a part of a loop is worth it from about 64 K floats packed, or a million
// elements evaluated, on.
constexpr int64_t kPackGrain = 64 * 1024;
constexpr int64_t kComputeGrain = 1024 * 1024;

// How many of `count` equal parts of `work` make a grain.
inline int64_t grain_of(int64_t grain, int64_t count, int64_t work) {
  return std::clamp<int64_t>(count * grain / std::max<int64_t>(work, 1), 1, std::max<int64_t>(count, 1));
}

inline int64_t elements(const Layer& d) { return d.N * d.P * d.Q * d.O * d.C * d.R * d.S; }

template <typename Call>
Tensor pack(const PassFunctions<Call>& pass, const Call& call, const Tensor& like) {
  Tensor packed = torch::stable::empty({pass.packed_floats(call)}, ScalarType::Float, std::nullopt, like.device());
  float* filters = packed.mutable_data_ptr<float>();
  const int64_t blocks = pass.num_blocks(call);
  const int64_t pack_grain = grain_of(kPackGrain, blocks, pass.packed_floats(call));
  torch::stable::parallel_for(0, blocks, pack_grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) pass.pack(call, block, filters);
  });
  return packed;
}

// A filter as large as its input sees every pixel once: its inputs are channels, in the order of the pixels.
inline bool is_flattened(const Layer& d, int64_t groups) { return groups == 1 && is_fully_connected(d) && d.H * d.W > 1; }
inline Layer flattened(const Layer& d, int64_t groups) { return is_flattened(d, groups) ? fully_connected(d) : d; }

// The call of a float32 layer's input gradient, and the tensors that it points to.
struct DenseGradInput {
  Tensor dy, x, w, dx;
  DenseGradInputCall call;

  DenseGradInput(const Tensor& dy_, const Tensor& x_, const Tensor& w_, const Tensor& dx_, const Layer& d, int64_t groups)
      : dy(dense(dy_, format_of(x_))),
        x(torch::stable::contiguous(x_, format_of(x_))),
        w(is_flattened(d, groups) ? torch::stable::contiguous(w_, format_of(x_)) : dense(w_, MemoryFormat::Contiguous)),
        dx(dx_),
        call{flattened(d, groups), image_of(dy), {x.const_data_ptr<float>(), layout_of(format_of(x_))},
             w.const_data_ptr<float>(), is_flattened(d, groups) ? FilterOrder::kChannelsInnermost : order_of(w),
             dx.mutable_data_ptr<float>(), false, groups} {}
};

// Packs the filters, then computes the units. `work` says how many elements of an ordinary layer would take as long.
template <typename Call>
void run(const PassFunctions<Call>& pass, const Call& call, int64_t work, const Tensor& like) {
  const Tensor packed = pack(pass, call, like);
  const float* filters = packed.const_data_ptr<float>();
  const int64_t units = pass.num_units(call);
  const int64_t compute_grain = grain_of(kComputeGrain, units, work);
  torch::stable::parallel_for(0, units, compute_grain, [&](int64_t begin, int64_t end) {
    pass.compute(call, filters, begin, end);
  });
}

// Computes every output of a direct pass.
template <typename Direct>
void run_direct(const Direct& pass) {
  constexpr int64_t kGrain = 64;
  torch::stable::parallel_for(0, pass.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pass(i);
  });
}

// The channels, or the filters, of one group that has `count` of them.
inline Tensor channels_of(Tensor t, int64_t group, int64_t count) {
  return torch::stable::narrow(t, 1, group * count, count);
}
inline Tensor filters_of(Tensor w, int64_t group, int64_t count) {
  return torch::stable::narrow(w, 0, group * count, count);
}

}  // namespace
}  // namespace addertrain::cpu
