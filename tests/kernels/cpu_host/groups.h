// Layers in many small groups: every pass over all groups against each group alone, in float64.
#pragma once

#include <vector>

#include "layers.h"

namespace cpu_host {

// Channels [first, first + count) of N images with `channels` of them.
inline std::vector<float> channels_of(const std::vector<float>& nchw, int64_t N, int64_t channels, int64_t area,
                                      int64_t first, int64_t count) {
  std::vector<float> part;
  for (int64_t n = 0; n < N; ++n)
    part.insert(part.end(), nchw.begin() + (n * channels + first) * area,
                nchw.begin() + (n * channels + first + count) * area);
  return part;
}

// sum dY X.
inline Answer grad_weight_answer(const Layer& d, const std::vector<float>& dy, const std::vector<float>& x) {
  const size_t count = d.O * d.C * d.R * d.S;
  Answer answer{std::vector<double>(count), std::vector<double>(count), d.N * d.P * d.Q};
  for_terms(d, [&](int64_t at, int64_t from, int64_t tap) {
    const double product = from < 0 ? 0.0 : static_cast<double>(dy[at]) * static_cast<double>(x[from]);
    answer.value[tap] += product;
    answer.magnitude[tap] += std::fabs(product);
  });
  return answer;
}

// What the operators make of `groups` groups of sizes `d`; `whole` has all channels and filters.
struct GroupedRun {
  Layer d, whole;
  int64_t groups;
  const Data& data;
  Placement lies;

  std::vector<float> image_of(const std::vector<float>& nchw, int64_t channels, int64_t area) const {
    return as_image(nchw, d.N, channels, area, lies.layout);
  }
  // Filters of any group have the channels of one.
  std::vector<float> filters() const {
    Layer of_one = d;
    of_one.O = whole.O;
    return as_filters(data.w, of_one, lies.w_order);
  }

  std::vector<float> forward(bool offset_free) const {
    Guarded<float> x(image_of(data.x, whole.C, d.H * d.W), lies.is_at_end), w(filters(), lies.is_at_end);
    Guarded<float> y(static_cast<int64_t>(data.dy.size()), lies.is_at_end);
    run(DenseForwardCall{d, {x.data(), lies.layout}, w.data(), lies.w_order, y.data(), lies.layout, offset_free,
                         groups});
    return as_nchw(y.values(), d.N, whole.O, d.P * d.Q, lies.layout);
  }

  std::vector<float> grad_input() const {
    Guarded<float> x(image_of(data.x, whole.C, d.H * d.W), lies.is_at_end), w(filters(), lies.is_at_end);
    Guarded<float> dy(image_of(data.dy, whole.O, d.P * d.Q), lies.is_at_end);
    Guarded<float> dx(static_cast<int64_t>(data.x.size()), lies.is_at_end);
    run(DenseGradInputCall{d, {dy.data(), lies.layout}, {x.data(), lies.layout}, w.data(), lies.w_order, dx.data(),
                           false, groups});
    return as_nchw(dx.values(), d.N, whole.C, d.H * d.W, lies.layout);
  }

  std::vector<float> grad_weight() const {
    Guarded<float> x(image_of(data.x, whole.C, d.H * d.W), lies.is_at_end);
    Guarded<float> dy(image_of(data.dy, whole.O, d.P * d.Q), lies.is_at_end);
    const DenseGradWeightCall call{d, {dy.data(), lies.layout}, {x.data(), lies.layout}, groups};
    const GroupedGradWeight& pass = kernels_for(whole.O).grouped_grad_weight;
    Guarded<float> sums(pass.num_units(call) * pass.unit_floats(call), true);
    for (int64_t i = pass.num_units(call); i-- > 0;) pass.compute(call, i, i + 1, sums.data());
    Guarded<float> dw(static_cast<int64_t>(data.w.size()), lies.is_at_end);
    for (int64_t o = whole.O; o-- > 0;) pass.merge(call, sums.data(), o, o + 1, dw.data());
    return dw.values();
  }
};

inline void check_group(const GroupedRun& of, int64_t g, const std::vector<float>& y, const std::vector<float>& dx,
                        const std::vector<float>& dw, bool offset_free, Report& report) {
  const Layer &d = of.d, &whole = of.whole;
  const int64_t of_filters = d.O * d.C * d.R * d.S, pixels = d.H * d.W, outputs = d.P * d.Q;
  const auto x = channels_of(of.data.x, d.N, whole.C, pixels, g * d.C, d.C);
  const auto dy = channels_of(of.data.dy, d.N, whole.O, outputs, g * d.O, d.O);
  const std::vector<float> w(of.data.w.begin() + g * of_filters, of.data.w.begin() + (g + 1) * of_filters);
  const std::vector<float> dw_of_group(dw.begin() + g * of_filters, dw.begin() + (g + 1) * of_filters);
  report.expect_near("grouped y", channels_of(y, d.N, whole.O, outputs, g * d.O, d.O),
                     forward_answer(d, x, w, offset_free));
  report.expect_near("grouped dx", channels_of(dx, d.N, whole.C, pixels, g * d.C, d.C), grad_input_answer(d, dy, x, w));
  report.expect_near("grouped dw", dw_of_group, grad_weight_answer(d, dy, x));
}

// `d` holds the sizes of one group.
inline void check_groups(const Layer& d, int64_t groups, uint64_t seed, Report& report) {
  Layer whole = d;
  whole.C *= groups, whole.O *= groups;
  Data data(whole, seed, 24, false);
  data.w.resize(whole.O * d.C * d.R * d.S);
  bool offset_free = false;
  for (const Placement& lies : kPlacements) {
    const GroupedRun of{d, whole, groups, data, lies};
    const auto y = of.forward(offset_free), dx = of.grad_input(), dw = of.grad_weight();
    for (int64_t g = 0; g < groups; ++g) check_group(of, g, y, dx, dw, offset_free, report);
    offset_free = !offset_free;
  }
}

}  // namespace cpu_host
