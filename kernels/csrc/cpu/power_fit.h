// |d|^q for one q between 0 and 1, as constants from which any instruction set computes it without a logarithm.
//
// A float is +-m 2^e with 1 <= m < 2, so |d|^q = m^q 2^(q e). A call has one q, so that m^q becomes a polynomial in
// m - 1.5 with fitted coefficients, and 2^(q e) a table of the exponents. power/element.h says how large the error is.
#pragma once

namespace addertrain::cpu {

struct PowerFit {
  static constexpr int kDegree = 7;
  static constexpr int kExponents = 256;  // all that a float can have, as its bits hold them: e + 127

  float p;                          // q + 1
  float coefficients[kDegree + 1];  // of m^q, the constant first
  float of_exponent[kExponents];    // 2^(q e)
  // 2^(q e) as a product of entries of two or three tables that registers can hold, each found by some bits of the
  // exponent. Entries of the high tables have the factor 2^(-127 q). The four of `high_two` come twice, because the third
  // bit of their index is the sign.
  alignas(64) float low_four[16], high_four[16];
  alignas(32) float low_three[8], middle_three[8], high_two[8];

  // For distances |d|^p and their slopes p |d|^(p - 1), 1 < p < 2: q = p - 1.
  explicit PowerFit(double p);
};

}  // namespace addertrain::cpu
