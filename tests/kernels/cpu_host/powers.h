// The passes with the p-th power of the distance over the operator table, against float64.
#pragma once

#include <vector>

#include "layers.h"

namespace cpu_host {

// The magnitude makes room for an element's own error, ten roundings and those of the difference, besides those of the
// sum (addertrain/ops/power_answers.py).
inline double tolerance_of_powers(const Answer& answer, size_t i) {
  constexpr double kOfATerm = 14.0, kRoundoff = 0x1p-24;
  return tolerance<float>(answer, i) + kOfATerm * kRoundoff * answer.magnitude[i];
}

inline void expect_powers(const char* name, const std::vector<float>& got, const Answer& answer, Report& report) {
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::fabs(got[i] - answer.value[i]) <= tolerance_of_powers(answer, i))) {
      report.expect(false, "%s[%zu] is %.9g, expected %.9g", name, i, got[i], answer.value[i]);
      return;
    }
  report.expect(true, "%s", name);
}

// What the three passes have to give for one power.
struct PowerAnswers {
  Answer y, dx, dw;

  PowerAnswers(const Layer& d, const Data& data, double p, bool offset_free) {
    const auto zeros = [](size_t count, int64_t terms) {
      return Answer{std::vector<double>(count), std::vector<double>(count), terms};
    };
    y = zeros(data.dy.size(), d.C * d.R * d.S);
    dx = zeros(data.x.size(), d.O * d.R * d.S);
    dw = zeros(data.w.size(), d.N * d.P * d.Q);
    for_terms(d, [&](int64_t at, int64_t from, int64_t tap) {
      const double x = from < 0 ? 0.0 : data.x[from], w = data.w[tap], g = data.dy[at], difference = w - x;
      const double distance = std::pow(std::fabs(difference), p), offset = offset_free ? std::pow(std::fabs(w), p) : 0.0;
      const double slope = g * std::copysign(p * std::pow(std::fabs(difference), p - 1), difference);
      y.value[at] += offset - distance, y.magnitude[at] += offset + distance;
      dw.value[tap] -= slope, dw.magnitude[tap] += std::fabs(slope);
      if (from >= 0) dx.value[from] += slope, dx.magnitude[from] += std::fabs(slope);
    });
  }
};

inline std::vector<float> as_ocrs(const std::vector<float>& w, const Layer& d, FilterOrder order) {
  return order == FilterOrder::kChannelsOutermost ? w : turned(w, d.O, d.R * d.S, d.C);
}

// Packs and computes in reverse, as `run` does.
template <typename Call>
void run_power(const PassFunctions<Call>& pass, const Call& call) {
  Guarded<float> packed(pass.packed_floats(call), true);
  for (int64_t i = pass.num_blocks(call); i-- > 0;) pass.pack(call, i, packed.data());
  for (int64_t i = pass.num_units(call); i-- > 0;) pass.compute(call, packed.data(), i, i + 1);
}

inline void check_power(const Layer& d, const Data& data, double p, const Placement& lies, bool offset_free,
                        Report& report) {
  const PowerAnswers expected(d, data, p, offset_free);
  const PowerFit fit(p);
  Guarded<float> upper(as_image(data.dy, d.N, d.O, d.P * d.Q, lies.layout), lies.is_at_end);
  Guarded<float> image(as_image(data.x, d.N, d.C, d.H * d.W, lies.layout), lies.is_at_end);
  Guarded<float> filters(as_filters(data.w, d, lies.w_order), lies.is_at_end);
  const DenseImage dy{upper.data(), lies.layout}, x{image.data(), lies.layout};
  Guarded<float> y(static_cast<int64_t>(data.dy.size()), lies.is_at_end);
  Guarded<float> dx(static_cast<int64_t>(data.x.size()), lies.is_at_end);
  Guarded<float> dw(static_cast<int64_t>(data.w.size()), lies.is_at_end);
  run_power(kernels_for(d.O).power_forward,
            {{d, x, filters.data(), lies.w_order, y.data(), lies.layout, offset_free}, &fit});
  run_power(kernels_for(d.C).power_grad_input, {{d, dy, x, filters.data(), lies.w_order, dx.data(), false}, &fit});
  run_power(kernels_for(d.O).power_grad_weight, {d, dy, x, filters.data(), lies.w_order, dw.data(), &fit});
  expect_powers("y of a power", as_nchw(y.values(), d.N, d.O, d.P * d.Q, lies.layout), expected.y, report);
  expect_powers("dx of a power", as_nchw(dx.values(), d.N, d.C, d.H * d.W, lies.layout), expected.dx, report);
  expect_powers("dw of a power", as_ocrs(dw.values(), d, lies.w_order), expected.dw, report);
}

// Powers take float64 long: one of them in each layer, in the layers that are not large.
inline void check_powers(const Layer& d, uint64_t seed, Report& report) {
  constexpr int64_t kMostElements = 400000;
  constexpr double kPowers[] = {1.5, 1.002, 1.98, 1.25};
  if (d.N * d.O * d.P * d.Q * d.C * d.R * d.S > kMostElements) return;
  const Data data(d, seed, 24, seed % 2 == 1);
  check_power(d, data, kPowers[seed % 4], kPlacements[seed % 3], seed % 5 < 3, report);
}

}  // namespace cpu_host
