// What is not finite, and zeros of either sign: the same kind of number as from the portable kernels, and where it
// belongs by the equations.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "csrc/cpu/dispatch.h"
#include "layers.h"

namespace cpu_host {

// A NaN, an infinity of either sign, or a number.
inline int kind_of(double value) { return std::isnan(value) ? 2 : std::isinf(value) ? (value > 0 ? 1 : -1) : 0; }

// Every result that a set of kernels has for these operands.
inline std::vector<std::vector<float>> results(InstructionSet set, const Layer& d, const Data& data,
                                               const Placement& lies) {
  use_instruction_set(set);
  return {forward(d, data.x, data.w, false, lies), forward(d, data.x, data.w, true, lies),
          grad_input(d, data.dy, data.x, data.w, Wanted::kAll, lies)};
}

// Small integers, whose sums are exact in any order: the same bits on every instruction set, and the right ones.
inline void check_integers(InstructionSet set, const Layer& d, uint64_t seed, Report& report) {
  Data data(d, seed, 24, false);
  for (std::vector<float>* values : {&data.x, &data.w, &data.dy})
    for (float& value : *values) value = std::trunc(value);  // -0 among them
  const auto portable = results(InstructionSet::kPortable, d, data, kPlacements[1]);
  const auto got = results(set, d, data, kPlacements[1]);
  const Answer expected[] = {forward_answer(d, data.x, data.w, false), forward_answer(d, data.x, data.w, true),
                             grad_input_answer(d, data.dy, data.x, data.w)};
  for (size_t k = 0; k < got.size(); ++k)
    for (size_t i = 0; i < got[k].size(); ++i) {
      const bool is_same = got[k][i] == portable[k][i] && std::signbit(got[k][i]) == std::signbit(portable[k][i]);
      report.expect(is_same && got[k][i] == expected[k].value[i], "integers: result %zu[%zu] is %g, expected %g", k, i,
                    got[k][i], expected[k].value[i]);
    }
}

// One element of x, w or dY that is no number, or one of x and of w at once.
inline void check_one_value(InstructionSet set, const Layer& d, uint64_t seed, Report& report) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity})
    for (int which = 0; which < 4; ++which) {
      Data data(d, seed, 24, (seed + which) % 2 == 1);  // behind a ReLU in every other one
      Draw draw(seed + 1);
      if (which == 0 || which == 3) data.x[draw.below(static_cast<int64_t>(data.x.size()))] = value;
      if (which == 1 || which == 3) data.w[draw.below(static_cast<int64_t>(data.w.size()))] = value;
      if (which == 2) data.dy[draw.below(static_cast<int64_t>(data.dy.size()))] = value;
      const auto portable = results(InstructionSet::kPortable, d, data, kPlacements[1]);
      const auto got = results(set, d, data, kPlacements[1]);
      const Answer y = forward_answer(d, data.x, data.w, false);
      const Answer dx = grad_input_answer(d, data.dy, data.x, data.w);
      for (size_t k = 0; k < got.size(); ++k)
        for (size_t i = 0; i < got[k].size(); ++i) {
          report.expect(kind_of(got[k][i]) == kind_of(portable[k][i]),
                        "%g in operand %d: result %zu[%zu] is %g, on the portable kernels %g", value, which, k, i,
                        got[k][i], portable[k][i]);
          // Infinity less infinity is clipped to 1 here; a NaN in w reaches the gradients of its whole channel.
          if (k < 2)
            report.expect(std::isfinite(got[k][i]) == std::isfinite(y.value[i]), "%g in operand %d: y[%zu] is %g",
                          value, which, i, got[k][i]);
          else if (std::isnan(dx.value[i]) && which != 3)
            report.expect(std::isnan(got[k][i]), "%g in operand %d: dx[%zu] is %g", value, which, i, got[k][i]);
        }
    }
}

}  // namespace cpu_host
