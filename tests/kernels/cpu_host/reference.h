// The equations as they stand, one loop an index, in float64; and how far off a float may be. x, dY and results are in
// NCHW, filters as w_ocrs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "device/layer.h"

namespace cpu_host {

using addertrain::Layer;

// What should come out, and sum |terms| of each output.
struct Answer {
  std::vector<double> value, magnitude;
  int64_t terms;
};

// body(index of y, index of x or -1 for a spatial zero pad, index of w) for every term of every response.
template <typename Body>
void for_terms(const Layer& d, const Body& body) {
  int64_t y = 0;
  for (int64_t n = 0; n < d.N; ++n)
    for (int64_t o = 0; o < d.O; ++o)
      for (int64_t p = 0; p < d.P; ++p)
        for (int64_t q = 0; q < d.Q; ++q, ++y) {
          int64_t w = o * d.C * d.R * d.S;
          for (int64_t c = 0; c < d.C; ++c)
            for (int64_t r = 0; r < d.R; ++r)
              for (int64_t s = 0; s < d.S; ++s, ++w) {
                const int64_t h = p * d.stride_h + r * d.dilation_h - d.padding_h;
                const int64_t v = q * d.stride_w + s * d.dilation_w - d.padding_w;
                const bool is_inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
                body(y, is_inside ? ((n * d.C + c) * d.H + h) * d.W + v : -1, w);
              }
        }
}

// Y = -sum |x - w|, and with sum |w| added where it is offset-free (Eq. 2).
template <typename T>
Answer forward_answer(const Layer& d, const std::vector<T>& x, const std::vector<T>& w, bool offset_free) {
  const size_t count = d.N * d.O * d.P * d.Q;
  Answer answer{std::vector<double>(count), std::vector<double>(count), d.C * d.R * d.S};
  for_terms(d, [&](int64_t at, int64_t from, int64_t tap) {
    const double pixel = from < 0 ? 0.0 : x[from], weight = w[tap];
    answer.value[at] += (offset_free ? std::fabs(weight) : 0.0) - std::fabs(pixel - weight);
    answer.magnitude[at] += std::fabs(pixel) + std::fabs(weight);
  });
  return answer;
}

// dX = sum dY HT(w - x), HT(d) = min(max(d, -1), 1) (Eq. 6, 7). A NaN stays one.
template <typename T>
Answer grad_input_answer(const Layer& d, const std::vector<T>& dy, const std::vector<T>& x, const std::vector<T>& w) {
  Answer answer{std::vector<double>(x.size()), std::vector<double>(x.size()), d.O * d.R * d.S};
  for_terms(d, [&](int64_t at, int64_t to, int64_t tap) {
    if (to < 0) return;
    const double difference = static_cast<double>(w[tap]) - static_cast<double>(x[to]);
    const double clipped = std::isnan(difference) ? difference : std::clamp(difference, -1.0, 1.0);
    answer.value[to] += static_cast<double>(dy[at]) * clipped;
    answer.magnitude[to] += std::fabs(static_cast<double>(dy[at]));
  });
  return answer;
}

// sum |x - w| of bytes.
inline std::vector<int32_t> distances(const Layer& d, const std::vector<uint8_t>& x, const std::vector<uint8_t>& w) {
  std::vector<int32_t> sums(d.N * d.O * d.P * d.Q);
  for_terms(d, [&](int64_t at, int64_t from, int64_t tap) {
    sums[at] += std::abs((from < 0 ? 0 : static_cast<int>(x[from])) - static_cast<int>(w[tap]));
  });
  return sums;
}

// The rule of addertrain/ops/tolerance.py: sqrt(terms) independent roundings of sum |terms|, and one of the result.
template <typename T>
double tolerance(const Answer& answer, size_t i) {
  constexpr double kSafety = 4.0, kRoundoff = std::numeric_limits<T>::epsilon() / 2;
  const double from_sum = kSafety * std::sqrt(std::max<double>(1.0, answer.terms)) * kRoundoff * answer.magnitude[i];
  return from_sum + kRoundoff * std::fabs(answer.value[i]) + std::numeric_limits<T>::denorm_min();
}

}  // namespace cpu_host
