// Batch normalisation with ReLU on CPUs: chunks, threads and the merging of their sums. float32, channels-last; Python
// sends everything else to torch's own norm.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "csrc/cpu/dispatch.h"

namespace addertrain::cpu {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The cut of x into chunks depends on its sizes alone, so the sums do not depend on the number of threads.
struct Chunks {
  int64_t floats, chunk_floats;

  Chunks(int64_t rows, int64_t C) : floats(rows * C) {
    constexpr int64_t kChunkFloats = 8192;  // 32 KiB: the second look at a chunk finds it in a near cache
    constexpr int64_t kMostChunks = 1024;
    int64_t chunk_rows = std::max<int64_t>(1, kChunkFloats / C);
    chunk_rows = std::max(chunk_rows, (rows + kMostChunks - 1) / kMostChunks);
    chunk_floats = chunk_rows * C;
  }
  int64_t count() const { return (floats + chunk_floats - 1) / chunk_floats; }
  int64_t begin(int64_t i) const { return i * chunk_floats; }
  int64_t end(int64_t i) const { return std::min(floats, (i + 1) * chunk_floats); }

  template <typename Body>
  void parallel(const Body& body) const {
    torch::stable::parallel_for(0, count(), 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) body(i);
    });
  }
};

struct Moments {
  std::vector<double> mean, var;
};

// Chan's rule: mean and sum of squared differences of the union of two samples.
Moments merge_moments(const Chunks& chunks, int64_t C, const std::vector<double>& sums,
                      const std::vector<double>& squares) {
  Moments m{std::vector<double>(C, 0.0), std::vector<double>(C, 0.0)};
  double seen = 0;
  for (int64_t i = 0; i < chunks.count(); ++i) {
    const double rows = static_cast<double>(chunks.end(i) - chunks.begin(i)) / static_cast<double>(C);
    for (int64_t c = 0; c < C; ++c) {
      const double difference = sums[i * C + c] / rows - m.mean[c];
      m.mean[c] += difference * rows / (seen + rows);
      m.var[c] += squares[i * C + c] + difference * difference * seen * rows / (seen + rows);
    }
    seen += rows;
  }
  for (double& var : m.var) var /= seen;
  return m;
}

Tensor channel_tensor(int64_t C, const Tensor& like) {
  return torch::stable::empty({C}, ScalarType::Float, std::nullopt, like.device());
}

Tensor image_tensor(const Tensor& like) {
  return torch::stable::empty({like.size(0), like.size(1), like.size(2), like.size(3)}, ScalarType::Float, std::nullopt,
                              like.device(), std::nullopt,
                              like.size(2) * like.size(3) > 1 || like.stride(3) == like.size(1)
                                  ? MemoryFormat::ChannelsLast
                                  : MemoryFormat::Contiguous);
}

void check_input(const Tensor& x) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 4 && (x.stride(1) == 1 || x.size(1) == 1),
                  "batch_norm_relu: expected float32 x in channels-last layout");
}

NormCall norm_call(const Tensor& x, bool relu) {
  return {x.const_data_ptr<float>(), x.size(0) * x.size(2) * x.size(3), x.size(1), relu};
}

// scale = weight / sqrt(var + eps), shift = bias - mean scale.
void affine(const float* weight, const float* bias, const float* mean, const float* var, double eps, int64_t C,
            std::vector<float>& scale, std::vector<float>& shift) {
  for (int64_t c = 0; c < C; ++c) {
    const double s = weight[c] / std::sqrt(static_cast<double>(var[c]) + eps);
    scale[c] = static_cast<float>(s);
    shift[c] = static_cast<float>(bias[c] - mean[c] * s);
  }
}

// What a norm makes of x: its statistics, and what it multiplies x by and adds to it.
struct Statistics {
  Tensor mean, var;
  std::vector<float> scale, shift;

  Statistics(const NormCall& call, const Chunks& chunks, const Tensor& x, const Tensor& weight, const Tensor& bias,
             double eps)
      : mean(channel_tensor(call.C, x)), var(channel_tensor(call.C, x)), scale(call.C), shift(call.C) {
    std::vector<double> sums(chunks.count() * call.C), squares(chunks.count() * call.C);
    const NormPasses& passes = kernels_for(kWholeRegister).norm;
    chunks.parallel([&](int64_t i) {
      passes.moments(call.x, chunks.begin(i), chunks.end(i), call.C, &sums[i * call.C], &squares[i * call.C]);
    });
    const Moments moments = merge_moments(chunks, call.C, sums, squares);
    float* mean_c = mean.mutable_data_ptr<float>();
    float* var_c = var.mutable_data_ptr<float>();
    for (int64_t c = 0; c < call.C; ++c) mean_c[c] = static_cast<float>(moments.mean[c]);
    for (int64_t c = 0; c < call.C; ++c) var_c[c] = static_cast<float>(moments.var[c]);
    affine(weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), mean_c, var_c, eps, call.C, scale, shift);
  }
};

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                   double eps, bool relu) {
  check_input(x);
  const NormCall call = norm_call(x, relu);
  const Chunks chunks(call.rows, call.C);
  const Statistics s(call, chunks, x, weight, bias, eps);
  Tensor y = image_tensor(x);
  float* out = y.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  chunks.parallel(
      [&](int64_t i) { passes.apply(call, s.scale.data(), s.shift.data(), chunks.begin(i), chunks.end(i), out); });
  return {y, s.mean, s.var};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_residual_relu(const Tensor& x, const Tensor& residual,
                                                            const Tensor& weight, const Tensor& bias, double eps) {
  check_input(x);
  const NormCall call = norm_call(x, true);
  const Chunks chunks(call.rows, call.C);
  const Statistics s(call, chunks, x, weight, bias, eps);
  const Tensor beside = torch::stable::contiguous(residual, MemoryFormat::ChannelsLast);
  const float* added = beside.const_data_ptr<float>();
  Tensor y = image_tensor(x);
  float* out = y.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  chunks.parallel([&](int64_t i) {
    passes.apply_residual(call, added, s.scale.data(), s.shift.data(), chunks.begin(i), chunks.end(i), out);
  });
  return {y, s.mean, s.var};
}

// The sums that a norm's gradient is made of, chunk by chunk: of g and of g (x - mean).
struct GradientSums {
  std::vector<double> sums, products;

  GradientSums(const Chunks& chunks, int64_t C) : sums(chunks.count() * C), products(chunks.count() * C) {}
};

// dx = scale (g - sum g / n - (x - mean) sum g (x - mean) / (n (var + eps)));  dbias = sum g;
// dweight = sum g (x - mean) / sqrt(var + eps). g = dy where the call's ReLU lets it through.
std::tuple<Tensor, Tensor, Tensor> norm_gradient(const NormCall& call, const Chunks& chunks, const GradientSums& of,
                                                 const float* dy, const Tensor& x, const std::vector<float>& scale,
                                                 const std::vector<float>& shift, const float* mean, const float* var,
                                                 double eps) {
  const int64_t C = call.C;
  std::vector<float> slope(C), offset(C);
  Tensor dx = image_tensor(x), dweight = channel_tensor(C, x), dbias = channel_tensor(C, x);
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0, product = 0;
    for (int64_t i = 0; i < chunks.count(); ++i) sum += of.sums[i * C + c], product += of.products[i * C + c];
    const double wide_var = static_cast<double>(var[c]) + eps, n = static_cast<double>(call.rows);
    dbias.mutable_data_ptr<float>()[c] = static_cast<float>(sum);
    dweight.mutable_data_ptr<float>()[c] = static_cast<float>(product / std::sqrt(wide_var));
    const double slope_c = -scale[c] * product / (n * wide_var);
    slope[c] = static_cast<float>(slope_c);
    offset[c] = static_cast<float>(-scale[c] * sum / n - slope_c * mean[c]);
  }
  float* out = dx.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  chunks.parallel([&](int64_t i) {
    passes.apply_gradient(call, dy, scale.data(), shift.data(), slope.data(), offset.data(), chunks.begin(i),
                          chunks.end(i), out);
  });
  return {dx, dweight, dbias};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                                            const Tensor& bias, const Tensor& mean, const Tensor& var,
                                                            double eps, bool relu) {
  check_input(x);
  const NormCall call = norm_call(x, relu);
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  const int64_t C = call.C;
  const Tensor g = torch::stable::contiguous(dy, MemoryFormat::ChannelsLast);
  const float* dy_data = g.const_data_ptr<float>();
  const float* mean_c = mean.const_data_ptr<float>();
  const float* var_c = var.const_data_ptr<float>();
  std::vector<float> scale(C), shift(C);
  affine(weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), mean_c, var_c, eps, C, scale, shift);
  const Chunks chunks(call.rows, C);
  GradientSums of(chunks, C);
  chunks.parallel([&](int64_t i) {
    passes.gradient_sums(call, dy_data, scale.data(), shift.data(), mean_c, chunks.begin(i), chunks.end(i),
                         &of.sums[i * C], &of.products[i * C]);
  });
  return norm_gradient(call, chunks, of, dy_data, x, scale, shift, mean_c, var_c, eps);
}

// dx, the residual's gradient g = dy where y > 0, dweight, dbias.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_residual_relu_backward(const Tensor& dy, const Tensor& y,
                                                                             const Tensor& x, const Tensor& weight,
                                                                             const Tensor& mean, const Tensor& var,
                                                                             double eps) {
  check_input(x);
  check_input(y);
  const NormCall call = norm_call(x, false);  // g has been through the ReLU
  const int64_t C = call.C;
  const Tensor upper = torch::stable::contiguous(dy, MemoryFormat::ChannelsLast);
  const float* mean_c = mean.const_data_ptr<float>();
  const float* var_c = var.const_data_ptr<float>();
  const Chunks chunks(call.rows, C);
  GradientSums of(chunks, C);
  Tensor g = image_tensor(x);
  float* kept = g.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  chunks.parallel([&](int64_t i) {
    passes.residual_gradient_sums(call, upper.const_data_ptr<float>(), y.const_data_ptr<float>(), mean_c,
                                  chunks.begin(i), chunks.end(i), &of.sums[i * C], &of.products[i * C], kept);
  });
  const std::vector<float> no_bias(C);
  std::vector<float> scale(C), shift(C);
  affine(weight.const_data_ptr<float>(), no_bias.data(), mean_c, var_c, eps, C, scale, shift);
  const auto [dx, dweight, dbias] = norm_gradient(call, chunks, of, kept, x, scale, shift, mean_c, var_c, eps);
  return {dx, g, dweight, dbias};
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) {
  m.impl("batch_norm_relu", TORCH_BOX(&addertrain::cpu::batch_norm_relu));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&addertrain::cpu::batch_norm_relu_backward));
  m.impl("batch_norm_residual_relu", TORCH_BOX(&addertrain::cpu::batch_norm_residual_relu));
  m.impl("batch_norm_residual_relu_backward", TORCH_BOX(&addertrain::cpu::batch_norm_residual_relu_backward));
}
