// What the operators on bytes and on words share: filters in the order of the kernels, behind a head that says how they lie.
#pragma once

#include <cstring>

#include "csrc/cpu/int8/byte_kernels.h"
#include "csrc/cpu/operators/dense_calls.h"

namespace addertrain::cpu {
namespace {

// It lies before packed filters and says how they lie, so that kernels of another instruction set refuse them. The depth
// of words is 0.
struct PackedHead {
  int64_t lanes, depth, O, C, R, S;
  bool operator==(const PackedHead&) const = default;
};
constexpr int64_t kHeadBytes = 64;  // so that the filters behind it stay aligned

inline PackedHead head_of(const ByteKernels& kernels, const Layer& d) {
  return {kernels.lanes, kernels.depth, d.O, d.C, d.R, d.S};
}
inline PackedHead head_of(const WordKernels& kernels, const Layer& d) { return {kernels.lanes, 0, d.O, d.C, d.R, d.S}; }

inline const uint8_t* behind_head(const Tensor& packed) { return packed.const_data_ptr<uint8_t>() + kHeadBytes; }

// A layer of which only the sizes of its filters w_ocrs are filled in.
inline Layer layer_of_filters(const Tensor& w) {
  Layer d{};
  d.O = w.size(0), d.C = w.size(1), d.R = w.size(2), d.S = w.size(3);
  return d;
}

template <typename Element, typename Kernels>
Tensor pack_filters(const Kernels& kernels, const Layer& d, const Tensor& w) {
  Tensor packed = torch::stable::empty({kHeadBytes + kernels.packed_bytes(d)}, ScalarType::Byte, std::nullopt, w.device());
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  const PackedHead head = head_of(kernels, d);
  std::memcpy(to, &head, sizeof head);
  const Element* from = w.const_data_ptr<Element>();
  const int64_t blocks = kernels.num_blocks(d);
  torch::stable::parallel_for(0, blocks, grain_of(kPackGrain, blocks, w.numel()), [&](int64_t begin, int64_t end) {
    kernels.pack(d, from, strides_of(w), begin, end, to + kHeadBytes);
  });
  return packed;
}

// `name` is the operator that reads them; its packing operator is NAME_pack.
template <typename Kernels>
void check_packed(const Kernels& kernels, const Layer& d, const Tensor& packed, const char* name) {
  PackedHead head{};
  const bool has_head = packed.dim() == 1 && packed.scalar_type() == ScalarType::Byte && packed.is_contiguous() &&
                        packed.size(0) == kHeadBytes + kernels.packed_bytes(d);
  if (has_head) std::memcpy(&head, packed.const_data_ptr<uint8_t>(), sizeof head);
  STD_TORCH_CHECK(head == head_of(kernels, d), name, ": expected filters of this shape, packed by ", name,
                  "_pack for the instruction set in use; pack them again");
}

}  // namespace
}  // namespace addertrain::cpu
