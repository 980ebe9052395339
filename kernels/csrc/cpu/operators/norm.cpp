// Batch normalisation with ReLU on CPUs: allocation and threads around norm/passes.h and norm/sums.h. It takes float32
// in channels-last; Python sends everything else to torch's own norm.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "csrc/cpu/norm/sums.h"
#include "csrc/cpu/operators/dense_calls.h"

namespace addertrain::cpu {
namespace {

constexpr const char* kNumbers =
    "batch_norm_relu: expected weight, bias, mean and var as contiguous float32 vectors of one number a channel";

template <typename Body>
void for_chunks(const Chunks& chunks, const Body& body) {
  torch::stable::parallel_for(0, chunks.count(), 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) body(i);
  });
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

// The passes read [rows][C] from the first element on.
void check_input(const Tensor& x) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 4 && x.size(1) > 0 && is_dense_channels_last(x),
                  "batch_norm_relu: expected float32 x of at least one channel, dense in channels-last layout");
}

// A residual, a response or its gradient, in the layout of x.
Tensor read_as(const Tensor& x, const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && have_one_shape(t, x),
                  "batch_norm_relu: expected a residual, y and dy of the shape and dtype of x");
  return torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

DenseNormCall norm_call(const Tensor& x, bool relu) {
  return {x.const_data_ptr<float>(), x.size(0) * x.size(2) * x.size(3), x.size(1), relu};
}

// The statistics of x, and the scale and the shift that normalise it.
struct Statistics {
  Tensor mean, var;
  std::vector<float> scale, shift;

  Statistics(const DenseNormCall& call, const Chunks& chunks, const Tensor& x, const Tensor& weight, const Tensor& bias,
             double eps)
      : mean(channel_tensor(call.C, x)), var(channel_tensor(call.C, x)), scale(call.C), shift(call.C) {
    std::vector<double> sums(chunks.count() * call.C), squares(chunks.count() * call.C);
    const NormPasses& passes = kernels_for(kWholeRegister).norm;
    for_chunks(chunks, [&](int64_t i) {
      passes.moments(call.x, chunks.begin(i), chunks.end(i), call.C, &sums[i * call.C], &squares[i * call.C]);
    });
    const ChannelMoments moments = merge_moments(chunks, call.C, sums, squares);
    float* mean_c = mean.mutable_data_ptr<float>();
    float* var_c = var.mutable_data_ptr<float>();
    for (int64_t c = 0; c < call.C; ++c) mean_c[c] = static_cast<float>(moments.mean[c]);
    for (int64_t c = 0; c < call.C; ++c) var_c[c] = static_cast<float>(moments.var[c]);
    affine(floats_of(weight, x, call.C, kNumbers), floats_of(bias, x, call.C, kNumbers), mean_c, var_c, eps, call.C,
           scale, shift);
  }
};

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                   double eps, bool relu) {
  check_input(x);
  const DenseNormCall call = norm_call(x, relu);
  const Chunks chunks(call.rows, call.C);
  const Statistics s(call, chunks, x, weight, bias, eps);
  Tensor y = image_tensor(x);
  float* out = y.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  for_chunks(chunks, [&](int64_t i) {
    passes.apply(call, s.scale.data(), s.shift.data(), chunks.begin(i), chunks.end(i), out);
  });
  return {y, s.mean, s.var};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_residual_relu(const Tensor& x, const Tensor& residual,
                                                            const Tensor& weight, const Tensor& bias, double eps) {
  check_input(x);
  const DenseNormCall call = norm_call(x, true);
  const Chunks chunks(call.rows, call.C);
  const Tensor added = read_as(x, residual);
  const Statistics s(call, chunks, x, weight, bias, eps);
  Tensor y = image_tensor(x);
  float* out = y.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  for_chunks(chunks, [&](int64_t i) {
    passes.apply_residual(call, added.const_data_ptr<float>(), s.scale.data(), s.shift.data(), chunks.begin(i),
                          chunks.end(i), out);
  });
  return {y, s.mean, s.var};
}

// dx, dweight and dbias from dy, of which the call's ReLU drops a part.
std::tuple<Tensor, Tensor, Tensor> norm_gradient(const DenseNormCall& call, const Chunks& chunks,
                                                 const GradientSums& of, const float* dy, const Tensor& x,
                                                 const std::vector<float>& scale, const std::vector<float>& shift,
                                                 const float* mean, const float* var, double eps) {
  const int64_t C = call.C;
  std::vector<float> slope(C), offset(C);
  Tensor dx = image_tensor(x), dweight = channel_tensor(C, x), dbias = channel_tensor(C, x);
  combine_sums(chunks, of, call.rows, C, scale, mean, var, eps, slope, offset, dweight.mutable_data_ptr<float>(),
               dbias.mutable_data_ptr<float>());
  float* out = dx.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  for_chunks(chunks, [&](int64_t i) {
    passes.apply_gradient(call, dy, scale.data(), shift.data(), slope.data(), offset.data(), chunks.begin(i),
                          chunks.end(i), out);
  });
  return {dx, dweight, dbias};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                                            const Tensor& bias, const Tensor& mean, const Tensor& var,
                                                            double eps, bool relu) {
  check_input(x);
  const DenseNormCall call = norm_call(x, relu);
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  const int64_t C = call.C;
  const Tensor upper = read_as(x, dy);
  const float* dy_data = upper.const_data_ptr<float>();
  const float* mean_c = floats_of(mean, x, C, kNumbers);
  const float* var_c = floats_of(var, x, C, kNumbers);
  std::vector<float> scale(C), shift(C);
  affine(floats_of(weight, x, C, kNumbers), floats_of(bias, x, C, kNumbers), mean_c, var_c, eps, C, scale, shift);
  const Chunks chunks(call.rows, C);
  GradientSums of(chunks, C);
  for_chunks(chunks, [&](int64_t i) {
    passes.gradient_sums(call, dy_data, scale.data(), shift.data(), mean_c, chunks.begin(i), chunks.end(i),
                         &of.sums[i * C], &of.products[i * C]);
  });
  return norm_gradient(call, chunks, of, dy_data, x, scale, shift, mean_c, var_c, eps);
}

// dx, the residual's gradient (dy where y > 0, else 0), dweight and dbias.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_residual_relu_backward(const Tensor& dy, const Tensor& y,
                                                                             const Tensor& x, const Tensor& weight,
                                                                             const Tensor& mean, const Tensor& var,
                                                                             double eps) {
  check_input(x);
  const DenseNormCall call = norm_call(x, false);  // the sums' pass has applied the ReLU
  const int64_t C = call.C;
  const Tensor upper = read_as(x, dy), response = read_as(x, y);
  const float* mean_c = floats_of(mean, x, C, kNumbers);
  const float* var_c = floats_of(var, x, C, kNumbers);
  const Chunks chunks(call.rows, C);
  GradientSums of(chunks, C);
  Tensor g = image_tensor(x);
  float* kept = g.mutable_data_ptr<float>();
  const NormPasses& passes = kernels_for(kWholeRegister).norm;
  for_chunks(chunks, [&](int64_t i) {
    passes.residual_gradient_sums(call, upper.const_data_ptr<float>(), response.const_data_ptr<float>(), mean_c,
                                  chunks.begin(i), chunks.end(i), &of.sums[i * C], &of.products[i * C], kept);
  });
  const std::vector<float> no_bias(C);
  std::vector<float> scale(C), shift(C);
  affine(floats_of(weight, x, C, kNumbers), no_bias.data(), mean_c, var_c, eps, C, scale, shift);
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
