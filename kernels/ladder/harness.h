// What every rung of the ladder shares: data, float64 answers, validation, timing. Needs a GPU; includes no torch.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "device/layer.h"

namespace ladder {

using addertrain::ImageStrides;
using addertrain::Layer;

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "ladder: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// A square layer on channels-last images.
inline Layer layer_of(int64_t N, int64_t C, int64_t O, int64_t size, int64_t kernel, int64_t stride) {
  Layer d{};
  const int64_t padding = kernel / 2, out = (size + 2 * padding - kernel) / stride + 1;
  d.N = N, d.C = C, d.O = O, d.H = d.W = size, d.R = d.S = kernel, d.P = d.Q = out;
  d.stride_h = d.stride_w = stride, d.padding_h = d.padding_w = padding, d.dilation_h = d.dilation_w = 1;
  return d;
}
inline ImageStrides channels_last(int64_t C, int64_t H, int64_t W) { return {H * W * C, 1, W * C, C}; }
inline double elements_of(const Layer& d) { return double(d.N) * d.O * d.P * d.Q * d.C * d.R * d.S; }

template <class T>
struct DeviceArray {
  T* data = nullptr;
  int64_t size = 0;

  explicit DeviceArray(int64_t count) : size(count) {
    check(cudaMalloc(&data, std::max<int64_t>(count, 1) * sizeof(T)), "memory");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    check(cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice), "copy to the GPU");
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> read() const {
    std::vector<T> values(size);
    check(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost), "copy from the GPU");
    return values;
  }
};

inline std::vector<float> normal(int64_t count, unsigned seed, bool relu) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw;
  std::vector<float> values(count);
  for (float& v : values) v = relu ? std::max(draw(engine), 0.0f) : draw(engine);
  return values;
}

// Images, filters and dY of a layer, x behind a ReLU; poisoned results.
struct Data {
  Layer d;
  std::vector<float> x, w, dy;
  DeviceArray<float> gpu_x, gpu_w, gpu_dy, y, dx;

  explicit Data(const Layer& layer)
      : d(layer),
        x(normal(d.N * d.H * d.W * d.C, 1, true)),
        w(normal(d.O * d.C * d.R * d.S, 2, false)),
        dy(normal(d.N * d.P * d.Q * d.O, 3, false)),
        gpu_x(x), gpu_w(w), gpu_dy(dy), y(d.N * d.P * d.Q * d.O), dx(d.N * d.H * d.W * d.C) {}
  void poison() {
    check(cudaMemset(y.data, 0xff, y.size * 4), "poison");
    check(cudaMemset(dx.data, 0xff, dx.size * 4), "poison");
  }
  float w_at(int64_t o, int64_t c, int64_t r, int64_t s) const { return w[((o * d.C + c) * d.R + r) * d.S + s]; }

  // Eq. 2 at one output, counted along memory.
  double forward_at(int64_t i) const {
    const int64_t o = i % d.O, q = i / d.O % d.Q, p = i / d.O / d.Q % d.P, n = i / d.O / d.Q / d.P;
    double sum = 0;
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s)
        for (int64_t c = 0; c < d.C; ++c) {
          const int64_t h = p * d.stride_h + r - d.padding_h, v = q * d.stride_w + s - d.padding_w;
          const bool inside = h >= 0 && h < d.H && v >= 0 && v < d.W;
          sum -= std::fabs((inside ? double(x[((n * d.H + h) * d.W + v) * d.C + c]) : 0.0) - w_at(o, c, r, s));
        }
    return sum;
  }
  // Eq. 6 and 7 at one input.
  double grad_input_at(int64_t i) const {
    const int64_t c = i % d.C, v = i / d.C % d.W, h = i / d.C / d.W % d.H, n = i / d.C / d.W / d.H;
    double sum = 0;
    for (int64_t r = 0; r < d.R; ++r)
      for (int64_t s = 0; s < d.S; ++s) {
        const int64_t a = h + d.padding_h - r, b = v + d.padding_w - s;
        if (a < 0 || b < 0 || a % d.stride_h || b % d.stride_w) continue;
        if (a / d.stride_h >= d.P || b / d.stride_w >= d.Q) continue;
        for (int64_t o = 0; o < d.O; ++o)
          sum += dy[((n * d.P + a / d.stride_h) * d.Q + b / d.stride_w) * d.O + o] *
                 std::clamp(double(w_at(o, c, r, s)) - double(x[i]), -1.0, 1.0);
      }
    return sum;
  }
};

// Largest error over a few hundred outputs, as a share of the answers' root mean square; NaN counts as infinite.
template <class Answer>
double error_of(const std::vector<float>& got, Answer answer) {
  double squares = 0, worst = 0;
  const int64_t count = got.size(), probes = std::min<int64_t>(count, 300);
  for (int64_t t = 0; t < probes; ++t) {
    const int64_t i = t * 2654435761 % count;
    const double expected = answer(i), off = std::fabs(got[i] - expected);
    squares += expected * expected;
    worst = off == off ? std::max(worst, off) : INFINITY;
  }
  return worst / std::sqrt(squares / probes);
}

// Median seconds of a call over rounds, each between two events.
template <class Call>
double seconds_of(Call call, int rounds = 11) {
  cudaEvent_t first, last;
  check(cudaEventCreate(&first), "event"), check(cudaEventCreate(&last), "event");
  std::vector<float> taken_ms(rounds);
  for (int i = -2; i < rounds; ++i) {
    check(cudaEventRecord(first), "event");
    call();
    check(cudaEventRecord(last), "event");
    check(cudaEventSynchronize(last), "run");
    if (i >= 0) check(cudaEventElapsedTime(&taken_ms[i], first, last), "event");
  }
  std::nth_element(taken_ms.begin(), taken_ms.begin() + rounds / 2, taken_ms.end());
  return taken_ms[rounds / 2] / 1e3;
}

}  // namespace ladder
