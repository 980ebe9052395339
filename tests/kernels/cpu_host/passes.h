// Calls of the passes as the operators make them, without torch: layouts, packing, units one at a time.
#pragma once

#include <vector>

#include "csrc/cpu/choices.h"
#include "arrays.h"

namespace cpu_host {

using namespace addertrain::cpu;

// How the tensors of a call lie, and at which end of their memory.
struct Placement {
  Layout layout;
  FilterOrder w_order;
  bool is_at_end;
};

constexpr Placement kPlacements[] = {{Layout::kNchw, FilterOrder::kChannelsOutermost, true},
                                     {Layout::kNhwc, FilterOrder::kChannelsInnermost, true},
                                     {Layout::kNhwc, FilterOrder::kChannelsOutermost, false}};

inline std::vector<float> as_image(const std::vector<float>& nchw, int64_t N, int64_t C, int64_t area, Layout layout) {
  return layout == Layout::kNchw ? nchw : turned(nchw, N, C, area);
}

inline std::vector<float> as_nchw(const std::vector<float>& image, int64_t N, int64_t C, int64_t area, Layout layout) {
  return layout == Layout::kNchw ? image : turned(image, N, area, C);
}

inline std::vector<float> as_filters(const std::vector<float>& w_ocrs, const Layer& d, FilterOrder order) {
  return order == FilterOrder::kChannelsOutermost ? w_ocrs : turned(w_ocrs, d.O, d.C, d.R * d.S);
}

// Packs and computes in reverse: no block and no unit may lean on one before it.
template <typename Call>
void run(const Call& call) {
  const PassFunctions<Call>& pass = pass_of(call);
  Guarded<float> packed(pass.packed_floats(call), true);
  for (int64_t i = pass.num_blocks(call); i-- > 0;) pass.pack(call, i, packed.data());
  for (int64_t i = pass.num_units(call); i-- > 0;) pass.compute(call, packed.data(), i, i + 1);
}

inline std::vector<float> forward(const Layer& d, const std::vector<float>& x, const std::vector<float>& w,
                                  bool offset_free, const Placement& lies) {
  Guarded<float> image(as_image(x, d.N, d.C, d.H * d.W, lies.layout), lies.is_at_end);
  Guarded<float> filters(as_filters(w, d, lies.w_order), lies.is_at_end);
  Guarded<float> y(d.N * d.O * d.P * d.Q, lies.is_at_end);
  run(DenseForwardCall{d, {image.data(), lies.layout}, filters.data(), lies.w_order, y.data(), lies.layout,
                       offset_free});
  return as_nchw(y.values(), d.N, d.O, d.P * d.Q, lies.layout);
}

// Whose gradients are asked for: those of all inputs, of those that are not 0, or whichever the operator would choose
// behind a ReLU.
enum class Wanted { kAll, kNonZeros, kRectified };

inline std::vector<float> grad_input(const Layer& d, const std::vector<float>& dy, const std::vector<float>& x,
                                     const std::vector<float>& w, Wanted wanted, const Placement& lies) {
  const bool is_flat = is_fully_connected(d) && d.H * d.W > 1;
  const FilterOrder order = !is_flat ? lies.w_order
                            : lies.layout == Layout::kNhwc ? FilterOrder::kChannelsInnermost
                                                           : FilterOrder::kChannelsOutermost;
  Guarded<float> upper(as_image(dy, d.N, d.O, d.P * d.Q, lies.layout), lies.is_at_end);
  Guarded<float> image(as_image(x, d.N, d.C, d.H * d.W, lies.layout), lies.is_at_end);
  Guarded<float> filters(as_filters(w, d, order), lies.is_at_end);
  Guarded<float> dx(static_cast<int64_t>(x.size()), lies.is_at_end);
  DenseGradInputCall call{d,         {upper.data(), lies.layout}, {image.data(), lies.layout}, filters.data(), order,
                     dx.data(), false};
  if (is_flat) call.layer = fully_connected(d), call.w_order = FilterOrder::kChannelsInnermost;
  call.only_non_zeros =
      wanted == Wanted::kNonZeros || (wanted == Wanted::kRectified && uses_lists(call.layer, call.x.data));
  run(call);
  return as_nchw(dx.values(), d.N, d.C, d.H * d.W, lies.layout);
}

}  // namespace cpu_host
