// Computes the constants of power_fit.h in float64 and rounds each once.
#include "csrc/cpu/power_fit.h"

#include <cmath>

namespace addertrain::cpu {
namespace {

constexpr int kNumCoefficients = PowerFit::kDegree + 1;

// The polynomial in u = m - 1.5 that meets (1.5 + u)^q at the Chebyshev nodes of -0.5 .. 0.5, by Newton's divided
// differences. Its relative error is at most 0.61 * 2^-24 for every q between 0 and 1 (tests/ops/test_power_kernels.py).
void interpolate(double q, double (&coefficients)[kNumCoefficients]) {
  const double pi = std::acos(-1.0);
  double nodes[kNumCoefficients], differences[kNumCoefficients];
  for (int i = 0; i < kNumCoefficients; ++i) {
    nodes[i] = 0.5 * std::cos(pi * (2 * i + 1) / (2 * kNumCoefficients));
    differences[i] = std::pow(1.5 + nodes[i], q);
  }
  for (int order = 1; order < kNumCoefficients; ++order)
    for (int i = kNumCoefficients - 1; i >= order; --i)
      differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - order]);
  for (double& coefficient : coefficients) coefficient = 0.0;
  for (int i = kNumCoefficients - 1; i >= 0; --i) {  // Horner's rule: times (u - node), plus the next difference
    for (int k = kNumCoefficients - 1; k > 0; --k) coefficients[k] = coefficients[k - 1] - nodes[i] * coefficients[k];
    coefficients[0] = differences[i] - nodes[i] * coefficients[0];
  }
}

}  // namespace

PowerFit::PowerFit(double p_) : p(static_cast<float>(p_)) {
  constexpr int kBias = 127;
  const double q = p_ - 1.0;
  double fitted[kNumCoefficients];
  interpolate(q, fitted);
  for (int i = 0; i < kNumCoefficients; ++i) coefficients[i] = static_cast<float>(fitted[i]);
  const auto power_of_two = [q](int e) { return static_cast<float>(std::exp2(q * e)); };
  for (int i = 0; i < kExponents; ++i) of_exponent[i] = power_of_two(i - kBias);
  for (int i = 0; i < 16; ++i) low_four[i] = power_of_two(i), high_four[i] = power_of_two(16 * i - kBias);
  for (int i = 0; i < 8; ++i) {
    low_three[i] = power_of_two(i), middle_three[i] = power_of_two(8 * i);
    high_two[i] = power_of_two(64 * (i % 4) - kBias);
  }
}

}  // namespace addertrain::cpu
