// csrc/cpu without torch: every instruction set of this machine over layers that standard input lists, one a line:
//
//   N C O H W R S stride_h stride_w padding_h padding_w dilation_h dilation_w groups
//
// Prints one line an instruction set, the first wrong results before it, and ends with exit code 1 where there are any.
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "groups.h"
#include "layers.h"
#include "norms.h"
#include "powers.h"
#include "special_values.h"

namespace cpu_host {
namespace {

// Special values are tried in small layers: each takes a dozen runs.
constexpr int64_t kSmallElements = 20000;

struct NamedLayer {
  std::string name;
  Layer d;  // the sizes of one group
  int64_t groups;
};

bool read_layer(std::istream& from, NamedLayer& to) {
  if (!std::getline(from, to.name)) return false;
  std::istringstream line(to.name);
  Layer d{};
  line >> d.N >> d.C >> d.O >> d.H >> d.W >> d.R >> d.S >> d.stride_h >> d.stride_w >> d.padding_h >> d.padding_w >>
      d.dilation_h >> d.dilation_w >> to.groups;
  if (!line) {
    std::fprintf(stderr, "cpu_host: expected fourteen numbers, got '%s'\n", to.name.c_str());
    std::exit(2);
  }
  d.C /= to.groups, d.O /= to.groups;
  d.P = (d.H + 2 * d.padding_h - d.dilation_h * (d.R - 1) - 1) / d.stride_h + 1;
  d.Q = (d.W + 2 * d.padding_w - d.dilation_w * (d.S - 1) - 1) / d.stride_w + 1;
  to.d = d;
  return true;
}

// Loops of a ceiling end, and count what they do.
void check_ceilings(Report& report) {
  report.begin("ceilings");
  const Kernels& kernels = kernels_for(kWholeRegister);
  for (const bool is_forward : {true, false})
    for (int64_t variant = 0; variant < 4; ++variant) {
      const int64_t once = kernels.spin(is_forward, variant, 1);
      report.expect(once > 0 && kernels.spin(is_forward, variant, 3) == 3 * once, "variant %ld", long(variant));
    }
}

// A float's square is exact in float64, and lanes are added in one order: the same bits on every instruction set.
void check_squares(InstructionSet set, Report& report) {
  Draw draw(1);
  std::vector<float> values(16384 + 5);
  for (float& value : values) value = static_cast<float>(draw.normal());
  const std::vector<double> wide(values.begin(), values.end());
  for (const int64_t count : {0, 1, 31, 32, 33, 1000, 16389}) {
    report.begin("squares of " + std::to_string(count));
    double expected = 0;
    for (int64_t i = 0; i < count; ++i) expected += wide[i] * wide[i];
    use_instruction_set(InstructionSet::kPortable);
    const double portable = kernels_for(kWholeRegister).squares.of_floats(values.data(), count);
    use_instruction_set(set);
    const SquareSums& sums = kernels_for(kWholeRegister).squares;
    report.expect(sums.of_floats(values.data(), count) == portable, "float32: not the portable kernels' bits");
    for (const double got : {portable, sums.of_doubles(wide.data(), count)})
      report.expect(std::fabs(got - expected) <= 1e-13 * expected, "%.17g, expected %.17g", got, expected);
  }
}

void check(InstructionSet set, const std::vector<NamedLayer>& layers, Report& report) {
  uint64_t seed = 0;
  for (const auto& [name, d, groups] : layers) {
    ++seed;
    if (d.N == 0) continue;  // no operator computes an empty result
    report.begin(name);
    use_instruction_set(set);
    if (groups > 1 && share_registers(d)) {
      check_groups(d, groups, seed, report);
      continue;
    }
    check_layer(d, seed, report);
    check_powers(d, seed, report);
    if (d.N * d.O * d.P * d.Q * d.C * d.R * d.S > kSmallElements) continue;
    check_integers(set, d, seed, report);
    check_one_value(set, d, seed, report);
  }
  use_instruction_set(set);
  check_norms(report);
  check_squares(set, report);
  check_ceilings(report);
}

// What is the same whichever instruction set is in use.
void check_beside(const std::vector<NamedLayer>& layers, Report& report) {
  uint64_t seed = 0;
  for (const auto& [name, d, groups] : layers) {
    report.begin(name);
    check_double(d, Data(d, ++seed, 24, false), report);
    check_bytes(d, seed, report);
  }
}

int run_all() {
  std::vector<NamedLayer> layers;
  for (NamedLayer layer; read_layer(std::cin, layer);) layers.push_back(layer);
  int64_t wrong = 0;
  const auto say = [&](const char* name, const Report& report) {
    wrong += report.wrong();
    std::printf("%s: %zu layers, %lld comparisons, %lld wrong\n", name, layers.size(),
                static_cast<long long>(report.compared()), static_cast<long long>(report.wrong()));
    std::fflush(stdout);
  };
  for (const InstructionSet set :
       {InstructionSet::kAvx512, InstructionSet::kAvx2, InstructionSet::kNeon, InstructionSet::kPortable}) {
    if (!use_instruction_set(set)) continue;
    Report report;
    check(set, layers, report);
    use_instruction_set(set);
    say(kernels_for(kWholeRegister).name, report);
  }
  Report report;
  check_beside(layers, report);
  say("float64 and bytes", report);
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace cpu_host

int main() { return cpu_host::run_all(); }
