// The operator table: every pass over a layer against float64, within the tolerance of its sums.
#pragma once

#include <vector>

#include "csrc/cpu/dispatch.h"
#include "device/direct.h"
#include "passes.h"
#include "reference.h"
#include "report.h"

namespace cpu_host {

// x, w and dY of a layer; behind a ReLU x has no negative element and half of it is 0.
struct Data {
  std::vector<float> x, w, dy;

  Data(const Layer& d, uint64_t seed, int significant_bits, bool is_behind_relu) {
    Draw draw(seed);
    const auto filled = [&](int64_t count, double deviation) {
      std::vector<float> values(count);
      for (float& value : values) value = rounded(deviation * draw.normal(), significant_bits);
      return values;
    };
    x = filled(d.N * d.C * d.H * d.W, 1.5);
    w = filled(d.O * d.C * d.R * d.S, 2.0);
    dy = filled(d.N * d.O * d.P * d.Q, 1.0);
    for (float& value : x) value = is_behind_relu && value < 0 ? 0.0f : value;
  }
};

inline void check_forward(const Layer& d, const Data& data, Report& report) {
  for (const bool offset_free : {false, true}) {
    const Answer answer = forward_answer(d, data.x, data.w, offset_free);
    for (const Placement& lies : kPlacements)
      report.expect_near("y", forward(d, data.x, data.w, offset_free, lies), answer);
  }
}

inline void check_grad_input(const Layer& d, const Data& data, Report& report) {
  const Answer answer = grad_input_answer(d, data.dy, data.x, data.w);
  const auto is_zero = [&](size_t i) { return data.x[i] == 0; };
  for (const Placement& lies : kPlacements) {
    report.expect_near("dx", grad_input(d, data.dy, data.x, data.w, Wanted::kAll, lies), answer);
    for (const Wanted wanted : {Wanted::kNonZeros, Wanted::kRectified})
      report.expect_near("dx behind a ReLU", grad_input(d, data.dy, data.x, data.w, wanted, lies), answer, is_zero);
  }
}

// float64 runs the direct kernels.
inline void check_double(const Layer& d, const Data& data, Report& report) {
  const std::vector<double> x(data.x.begin(), data.x.end()), w(data.w.begin(), data.w.end());
  const std::vector<double> dy(data.dy.begin(), data.dy.end());
  const auto strides = [](int64_t C, int64_t H, int64_t W) {
    return addertrain::ImageStrides{C * H * W, H * W, W, 1};
  };
  const auto of_x = strides(d.C, d.H, d.W), of_w = strides(d.C, d.R, d.S), of_y = strides(d.O, d.P, d.Q);
  std::vector<double> y(dy.size()), dx(x.size());
  const addertrain::DirectForward<double, double> forward{d, x.data(), of_x, w.data(), of_w, y.data(), of_y, true};
  for (int64_t i = 0; i < forward.count(); ++i) forward(i);
  report.expect_near("float64 y", y, forward_answer(d, x, w, true));
  const addertrain::DirectGradInput<double, double> grad{d,        dy.data(), of_y,      x.data(), of_x,
                                                         w.data(), of_w,      dx.data(), of_x};
  for (int64_t i = 0; i < grad.count(); ++i) grad(i);
  report.expect_near("float64 dx", dx, grad_input_answer(d, dy, x, w));
}

// Distances of bytes are integers: no tolerance. Every set of kernels that this processor has.
inline void check_bytes(const Layer& d, uint64_t seed, Report& report) {
  Draw draw(seed);
  std::vector<uint8_t> x(d.N * d.C * d.H * d.W), w(d.O * d.C * d.R * d.S);
  for (uint8_t& value : x) value = static_cast<uint8_t>(draw.below(256));
  for (uint8_t& value : w) value = static_cast<uint8_t>(draw.below(256));
  const std::vector<int32_t> expected = turned(distances(d, x, w), d.N, d.O, d.P * d.Q);
  Guarded<uint8_t> image(turned(x, d.N, d.C, d.H * d.W), true);
  for (const InstructionSet set : {InstructionSet::kAvx512, InstructionSet::kAvx512WithoutVnni, InstructionSet::kAvx2,
                                   InstructionSet::kNeon, InstructionSet::kPortable}) {
    if (!use_instruction_set(set)) continue;
    const ByteKernels& kernels = byte_kernels();
    Guarded<uint8_t> packed(kernels.packed_bytes(d), true);
    Guarded<int32_t> sums(kernels.num_pixel_sums(d), true), y(static_cast<int64_t>(expected.size()), true);
    for (int64_t i = kernels.num_blocks(d); i-- > 0;)
      kernels.pack(d, w.data(), {d.C * d.R * d.S, d.R * d.S, d.S, 1}, i, i + 1, packed.data());
    kernels.add_up_pixels(d, image.data(), 0, kernels.num_pixel_sums(d), sums.data());
    ByteCall call{};
    call.layer = d, call.x = image.data(), call.packed = packed.data(), call.pixel_sums = sums.data();
    call.distances = y.data();
    for (int64_t i = kernels.num_units(d); i-- > 0;) kernels.compute(call, i, i + 1);
    report.expect(y.values() == expected, "distances of bytes differ");
  }
  use_instruction_set(InstructionSet::kBest);
}

inline void check_layer(const Layer& d, uint64_t seed, Report& report) {
  for (const int significant_bits : {24, 11, 8})
    for (const bool is_behind_relu : {false, true}) {
      const Data data(d, seed, significant_bits, is_behind_relu);
      check_forward(d, data, report);
      check_grad_input(d, data, report);
    }
}

}  // namespace cpu_host
