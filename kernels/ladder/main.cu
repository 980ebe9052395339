// The ladder: kernel 1 to 7 on a layer, each validated against float64 and then timed, with what was predicted.
//
//   nvcc -std=c++20 -O3 -arch=native -I kernels kernels/ladder/main.cu -o ladder && ./ladder [GHz]
//
// Shares are of the float32 ceiling, multiprocessors x 128 x clock / 2 elements a second, at the clock that is given
// (default: the highest that the device names). Predictions are docs/cuda.md's; on no GPU has this been run yet.
#include "csrc/cuda/direct.cu"
#include "csrc/cuda/launch_pairs.h"
#include "csrc/cuda/tile_policy.h"
#include "csrc/cuda/launch_words.h"
#include "ladder/harness.h"

namespace ladder {

using namespace addertrain;
using namespace addertrain::cuda;

ForwardCall forward_call(const Data& data) {
  const Layer& d = data.d;
  return {d, Type::kFloat32, {data.gpu_x.data, channels_last(d.C, d.H, d.W)},
          {data.gpu_w.data, {d.C * d.R * d.S, d.R * d.S, d.S, 1}}, {data.y.data, channels_last(d.O, d.P, d.Q)}, false,
          {}, nullptr};
}
GradInputCall grad_input_call(const Data& data) {
  const Layer& d = data.d;
  return {d, Type::kFloat32, {data.gpu_dy.data, channels_last(d.O, d.P, d.Q)},
          {data.gpu_x.data, channels_last(d.C, d.H, d.W)}, {data.gpu_w.data, {d.C * d.R * d.S, d.R * d.S, d.S, 1}},
          {data.dx.data, channels_last(d.C, d.H, d.W)}};
}

// One rung: how to run each pass, and the shares in per cent that were predicted (0: none was).
struct Rung {
  const char* name;
  double forward_share, grad_share;
};

struct Bench {
  Data& data;
  double ceiling;  // elements a second
  int failures = 0;

  template <class Forward, class GradInput>
  void climb(const Rung& rung, Forward forward, GradInput grad_input, double tolerance = 1e-5) {
    data.poison();
    check(forward(), rung.name), check(grad_input(), rung.name);
    const double wrong_y = error_of(data.y.read(), [&](int64_t i) { return data.forward_at(i); });
    const double wrong_dx = error_of(data.dx.read(), [&](int64_t i) { return data.grad_input_at(i); });
    if (!(wrong_y < tolerance && wrong_dx < 10 * tolerance)) {
      std::printf("%-34s WRONG: forward %.1e, input gradient %.1e\n", rung.name, wrong_y, wrong_dx);
      ++failures;
      return;
    }
    const double rate = elements_of(data.d) / ceiling;
    const double y_s = seconds_of(forward), dx_s = seconds_of(grad_input);
    std::printf("%-34s forward %8.3f ms %5.1f %% (predicted %3.0f)", rung.name, 1e3 * y_s, 100 * rate / y_s,
                rung.forward_share);
    std::printf("   input gradient %8.3f ms %5.1f %% (predicted %3.0f)\n", 1e3 * dx_s, 100 * rate / dx_s,
                rung.grad_share);
  }
};

// A word tile for each pass, with packing and second passes, as the operators run it.
template <class ForwardTile, class GradTile>
void climb_words(Bench& bench, const Rung& rung) {
  const auto forward = typed<float>(forward_call(bench.data), ColumnTerm::kNone);
  const auto grad = typed<float>(grad_input_call(bench.data));
  const int64_t bytes = std::max(plan_words<ForwardTile>(forward).bytes, plan_words<GradTile>(grad).bytes);
  const DeviceArray<unsigned char> workspace(bytes);
  bench.climb(
      rung, [&] { return run_words<ForwardTile, ForwardF32, true>(forward, workspace.data, nullptr); },
      [&] { return run_words<GradTile, GradInputF32, true>(grad, workspace.data, nullptr); });
}

__global__ void convert(const float* from, __half* to, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i < count) to[i] = __float2half(from[i]);
}
__global__ void widen(const __half* from, float* to, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i < count) to[i] = __half2float(from[i]);
}

// The same layer in float16. Validation goes through float32 copies of the results; timing does not.
template <class ForwardTile, class GradTile>
void climb_pairs(Bench& bench, const Rung& rung) {
  Data& data = bench.data;
  const DeviceArray<__half> x(data.gpu_x.size), w(data.gpu_w.size), dy(data.gpu_dy.size), y(data.y.size),
      dx(data.dx.size);
  const auto to_half = [](const DeviceArray<float>& from, const DeviceArray<__half>& to) {
    convert<<<num_blocks(from.size, 256), 256>>>(from.data, to.data, from.size);
  };
  to_half(data.gpu_x, x), to_half(data.gpu_w, w), to_half(data.gpu_dy, dy);
  ForwardCall forward_half = forward_call(data);
  GradInputCall grad_half = grad_input_call(data);
  forward_half.x.data = x.data, forward_half.w.data = w.data, forward_half.y.data = y.data;
  grad_half.dy.data = dy.data, grad_half.x.data = x.data, grad_half.w.data = w.data, grad_half.dx.data = dx.data;
  const auto forward = typed<__half>(forward_half, ColumnTerm::kMinusSum);
  const auto grad = typed<__half>(grad_half);
  const int64_t bytes = std::max(plan_pairs<ForwardTile, false>(forward).bytes, plan_pairs<GradTile, true>(grad).bytes);
  const DeviceArray<unsigned char> workspace(bytes);
  bool is_validation = true;
  const auto finish = [&](cudaError_t error, const DeviceArray<__half>& from, const DeviceArray<float>& to) {
    if (is_validation) widen<<<num_blocks(from.size, 256), 256>>>(from.data, to.data, from.size);
    return error;
  };
  bench.climb(
      rung,
      [&] { return finish(run_pairs<ForwardTile, __half, false, true>(forward, workspace.data, nullptr), y, data.y); },
      [&] {
        const cudaError_t error = run_pairs<GradTile, __half, true, true>(grad, workspace.data, nullptr);
        const cudaError_t finished = finish(error, dx, data.dx);
        is_validation = false;
        return finished;
      },
      5e-3);
}

void climb_all(Bench& bench) {
  const ForwardCall forward = forward_call(bench.data);
  const GradInputCall grad = grad_input_call(bench.data);
  bench.climb({"1 one thread an output", 0, 0}, [&] { return direct_forward(forward, nullptr); },
              [&] { return direct_grad_input(grad, nullptr); });
  climb_words<WordTile<64, 64, 16, 4, 4, 2, 3>, WordTile<64, 64, 16, 4, 4, 2, 3>>(
      bench, {"2 64x64, 4x4 a thread, 2 stages", 78, 76});
  climb_words<WordTile<128, 64, 16, 8, 4, 3, 2>, WordTile<128, 64, 16, 8, 4, 3, 2>>(
      bench, {"3 128x64, 8x4, 3 stages", 84, 83});
  climb_words<WordTile<128, 128, 16, 8, 8, 3, 2>, WordTile<128, 128, 16, 8, 8, 3, 1>>(
      bench, {"4 128x128, 8x8, 3 stages", 90, 89});
  climb_words<ForwardTiles::Wide, GradInputTiles::Wide>(bench, {"5 64x128 forward (ships)", 90, 89});
  climb_pairs<ForwardPairTiles::Narrow, GradInputPairTiles::Wide>(bench, {"6 float16, 128x64 forward", 190, 190});
  climb_pairs<ForwardPairTiles::Wide, GradInputPairTiles::Wide>(bench, {"7 float16, 128x128 (ships)", 198, 190});
}

}  // namespace ladder

int main(int argc, char** argv) {
  using namespace ladder;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "a GPU");
  int clock_khz = 0;
  check(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0), "its clock");
  const double ghz = argc > 1 ? std::atof(argv[1]) : clock_khz / 1e6;
  const double ceiling = device.multiProcessorCount * 128.0 / 2 * ghz * 1e9;
  std::printf("%s, %d multiprocessors, ceiling %.2fe12 elements/s at %.3f GHz\n", device.name,
              device.multiProcessorCount, ceiling / 1e12, ghz);
  int failures = 0;
  for (const auto& layer : {layer_of(128, 256, 256, 14, 3, 1), layer_of(128, 128, 128, 56, 3, 2),
                            layer_of(128, 64, 256, 56, 1, 1)}) {
    std::printf("\n%dx%d, %d -> %d at %d, stride %d, batch %d\n", int(layer.R), int(layer.S), int(layer.C),
                int(layer.O), int(layer.H), int(layer.stride_h), int(layer.N));
    Data data(layer);
    Bench bench{data, ceiling};
    climb_all(bench);
    failures += bench.failures;
  }
  return failures != 0;
}
