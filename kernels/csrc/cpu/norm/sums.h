// How a batch norm divides x into chunks, merges the sums that norm/passes.h gives for each, and computes the coefficients
// that the passes then apply. This is plain C++ without torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace addertrain::cpu {

// How x is divided into chunks depends on its sizes alone, so the sums do not depend on the number of threads.
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
};

struct ChannelMoments {
  std::vector<double> mean, var;
};

// Chan's rule: mean and sum of squared differences of the union of two samples.
inline ChannelMoments merge_moments(const Chunks& chunks, int64_t C, const std::vector<double>& sums,
                             const std::vector<double>& squares) {
  ChannelMoments m{std::vector<double>(C, 0.0), std::vector<double>(C, 0.0)};
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

// scale = weight / sqrt(var + eps), shift = bias - mean scale.
inline void affine(const float* weight, const float* bias, const float* mean, const float* var, double eps, int64_t C,
                   std::vector<float>& scale, std::vector<float>& shift) {
  for (int64_t c = 0; c < C; ++c) {
    const double s = weight[c] / std::sqrt(static_cast<double>(var[c]) + eps);
    scale[c] = static_cast<float>(s);
    shift[c] = static_cast<float>(bias[c] - mean[c] * s);
  }
}

// The sums that a norm's gradient is made of, chunk by chunk: of g and of g (x - mean).
struct GradientSums {
  std::vector<double> sums, products;

  GradientSums(const Chunks& chunks, int64_t C) : sums(chunks.count() * C), products(chunks.count() * C) {}
};

// dx = scale (g - sum g / n - (x - mean) sum g (x - mean) / (n (var + eps))) = scale g + slope x + offset;
// dbias = sum g;  dweight = sum g (x - mean) / sqrt(var + eps).
inline void combine_sums(const Chunks& chunks, const GradientSums& of, int64_t rows, int64_t C,
                         const std::vector<float>& scale, const float* mean, const float* var, double eps,
                         std::vector<float>& slope, std::vector<float>& offset, float* dweight, float* dbias) {
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0, product = 0;
    for (int64_t i = 0; i < chunks.count(); ++i) sum += of.sums[i * C + c], product += of.products[i * C + c];
    const double wide_var = static_cast<double>(var[c]) + eps, n = static_cast<double>(rows);
    dbias[c] = static_cast<float>(sum);
    dweight[c] = static_cast<float>(product / std::sqrt(wide_var));
    const double slope_c = -scale[c] * product / (n * wide_var);
    slope[c] = static_cast<float>(slope_c);
    offset[c] = static_cast<float>(-scale[c] * sum / n - slope_c * mean[c]);
  }
}

}  // namespace addertrain::cpu
