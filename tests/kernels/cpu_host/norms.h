// Batch norms with ReLU, alone and behind a residual sum, and their gradients against float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "csrc/cpu/dispatch.h"
#include "csrc/cpu/norm/sums.h"
#include "arrays.h"
#include "report.h"

namespace cpu_host {

using namespace addertrain::cpu;

struct NormData {
  int64_t rows, C;
  bool relu;
  std::vector<float> x, residual, weight, bias, dy;  // images as [rows][C]
};

// Everything that a norm and its gradient give.
template <typename T>
struct NormResult {
  std::vector<T> mean, var, y, dx, dweight, dbias;
};

constexpr double kEps = 1e-5;

inline NormResult<double> norm_answer(const NormData& data, bool has_residual) {
  const int64_t rows = data.rows, C = data.C;
  NormResult<double> to{std::vector<double>(C), std::vector<double>(C), std::vector<double>(rows * C),
                        std::vector<double>(rows * C), std::vector<double>(C), std::vector<double>(C)};
  for (int64_t c = 0; c < C; ++c) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < rows; ++i) mean += data.x[i * C + c] / static_cast<double>(rows);
    for (int64_t i = 0; i < rows; ++i) var += std::pow(data.x[i * C + c] - mean, 2) / static_cast<double>(rows);
    const double deviation = std::sqrt(var + kEps);
    double sum = 0, product = 0;
    std::vector<double> g(rows);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = i * C + c;
      const double normal = (data.x[at] - mean) / deviation;
      const double value = data.weight[c] * normal + data.bias[c] + (has_residual ? data.residual[at] : 0.0f);
      to.y[at] = data.relu ? std::max(0.0, value) : value;
      g[i] = data.relu && value <= 0 ? 0.0 : data.dy[at];
      sum += g[i], product += g[i] * normal;
    }
    for (int64_t i = 0; i < rows; ++i) {
      const double normal = (data.x[i * C + c] - mean) / deviation;
      to.dx[i * C + c] = data.weight[c] / deviation * (g[i] - (sum + normal * product) / static_cast<double>(rows));
    }
    to.mean[c] = mean, to.var[c] = var, to.dweight[c] = product, to.dbias[c] = sum;
  }
  return to;
}

// As csrc/cpu/operators/norm.cpp, chunk by chunk from the last one on.
inline NormResult<float> norm_of(const NormData& data, bool has_residual) {
  const int64_t C = data.C, rows = data.rows;
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  const Chunks chunks(rows, C);
  const DenseNormCall call{data.x.data(), rows, C, data.relu};
  const std::vector<float> nothing(C);
  NormResult<float> to{nothing, nothing, {}, {}, nothing, nothing};
  std::vector<double> sums(chunks.count() * C), squares(chunks.count() * C);
  const auto for_chunks = [&](const auto& body) {
    for (int64_t i = chunks.count(); i-- > 0;) body(i, chunks.begin(i), chunks.end(i));
  };
  for_chunks([&](int64_t i, int64_t begin, int64_t end) {
    passes.moments(call.x, begin, end, C, &sums[i * C], &squares[i * C]);
  });
  const ChannelMoments moments = merge_moments(chunks, C, sums, squares);
  std::copy(moments.mean.begin(), moments.mean.end(), to.mean.begin());
  std::copy(moments.var.begin(), moments.var.end(), to.var.begin());
  std::vector<float> scale(C), shift(C), slope(C), offset(C);
  affine(data.weight.data(), data.bias.data(), to.mean.data(), to.var.data(), kEps, C, scale, shift);

  Guarded<float> y(rows * C, true), dx(rows * C, true), g(rows * C, true);
  GradientSums of(chunks, C);
  for_chunks([&](int64_t i, int64_t begin, int64_t end) {
    if (has_residual) {
      passes.apply_residual(call, data.residual.data(), scale.data(), shift.data(), begin, end, y.data());
      passes.residual_gradient_sums(call, data.dy.data(), y.data(), to.mean.data(), begin, end, &of.sums[i * C],
                                    &of.products[i * C], g.data());
    } else {
      passes.apply(call, scale.data(), shift.data(), begin, end, y.data());
      passes.gradient_sums(call, data.dy.data(), scale.data(), shift.data(), to.mean.data(), begin, end,
                           &of.sums[i * C], &of.products[i * C]);
    }
  });
  combine_sums(chunks, of, rows, C, scale, to.mean.data(), to.var.data(), kEps, slope, offset, to.dweight.data(),
               to.dbias.data());
  DenseNormCall backward = call;
  backward.relu = data.relu && !has_residual;  // a residual's gradient has been through the ReLU
  const float* upper = has_residual ? g.data() : data.dy.data();
  for_chunks([&](int64_t, int64_t begin, int64_t end) {
    passes.apply_gradient(backward, upper, scale.data(), shift.data(), slope.data(), offset.data(), begin, end,
                          dx.data());
  });
  to.y = y.values(), to.dx = dx.values();
  return to;
}

// float32 sums of at most a chunk, merged in float64: a few units in the last place of the largest value.
inline void expect_norm_near(const char* name, const std::vector<float>& got, const std::vector<double>& expected,
                             Report& report) {
  constexpr double kTolerance = 2e-6;
  double largest = 1e-30, error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    const double off = std::fabs(got[i] - expected[i]);
    error = std::isnan(off) ? HUGE_VAL : std::max(error, off);
  }
  report.expect(error <= kTolerance * largest, "%s is off by %g of %g", name, error, largest);
}

inline void check_norms(Report& report) {
  constexpr int64_t kSizes[][2] = {{12544, 6}, {6400, 16}, {37, 120}, {75, 7}, {18, 300}, {5, 10}, {12, 1}, {9, 4097}};
  for (const auto& [rows, C] : kSizes)
    for (const bool relu : {false, true})
      for (const bool has_residual : {false, true}) {
        if (has_residual && !relu) continue;  // no such operator
        Draw draw(static_cast<uint64_t>(rows * C));
        NormData data{rows, C, relu, {}, {}, {}, {}, {}};
        for (auto [values, count] : {std::pair{&data.x, rows * C}, {&data.residual, rows * C}, {&data.weight, C},
                                     {&data.bias, C}, {&data.dy, rows * C}}) {
          values->resize(count);
          for (float& value : *values) value = static_cast<float>(1.3 * draw.normal());
        }
        report.begin("norm of " + std::to_string(rows) + " x " + std::to_string(C) + (relu ? ", ReLU" : "") +
                     (has_residual ? ", residual" : ""));
        const NormResult<float> got = norm_of(data, has_residual);
        const NormResult<double> answer = norm_answer(data, has_residual);
        expect_norm_near("mean", got.mean, answer.mean, report);
        expect_norm_near("var", got.var, answer.var, report);
        expect_norm_near("y", got.y, answer.y, report);
        expect_norm_near("dx", got.dx, answer.dx, report);
        expect_norm_near("dweight", got.dweight, answer.dweight, report);
        expect_norm_near("dbias", got.dbias, answer.dbias, report);
      }
}

}  // namespace cpu_host
