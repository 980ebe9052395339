// All kernels of layers with their planners and launchers, compiled for this machine's processor by the emulator.
#include "csrc/cuda/depthwise.cu"
#include "csrc/cuda/direct.cu"
#include "csrc/cuda/dispatch.cpp"
#include "csrc/cuda/distance_u8.cu"
#include "csrc/cuda/forward_f32.cu"
#include "csrc/cuda/forward_pairs.cu"
#include "csrc/cuda/grad_input_f32.cu"
#include "csrc/cuda/grad_input_pairs.cu"
#include "csrc/cuda/norm.cu"
#include "csrc/cuda/power_f32.cu"
#include "csrc/cuda/scale.cu"
#include "csrc/cuda/squares.cu"

#include <memory>

namespace {

using namespace addertrain;
using namespace addertrain::cuda;

Type type_of(int type) { return static_cast<Type>(type); }

// A workspace starts as NaN: nothing may be read that was not written.
template <class Call>
std::unique_ptr<void, decltype(&std::free)> workspace_for(const Call& call) {
  const int64_t size = round_up(workspace_bytes(call), 256);
  std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(256, size), &std::free);
  std::memset(workspace.get(), 0xff, size);
  return workspace;
}

}  // namespace

// 0, or 1 where no kernel serves the call. Types in the order of launchers.h.
extern "C" int emulated_forward(int type, const Layer* d, const ImageStrides* strides, const void* x, const void* w,
                                void* y, bool offset_free, const float* scale, const float* shift,
                                const void* residual, bool relu, double* sums, int64_t groups,
                                double power) {
  const ForwardCall call{*d, type_of(type), {x, strides[0]}, {w, strides[1]}, {y, strides[2]}, offset_free,
                         {scale, shift, residual, relu}, sums, groups, power};
  return adder2d_cuda(call, workspace_for(call).get(), nullptr);
}

extern "C" int emulated_grad_input(int type, const Layer* d, const ImageStrides* strides, const void* dy,
                                   const void* x, const void* w, void* dx, int64_t groups, double power) {
  const GradInputCall call{*d, type_of(type), {dy, strides[0]}, {x, strides[1]}, {w, strides[2]}, {dx, strides[3]},
                           groups, power};
  return adder2d_grad_input_cuda(call, workspace_for(call).get(), nullptr);
}

extern "C" int emulated_distances(const Layer* d, const ImageStrides* strides, const void* x, const void* w, void* y) {
  const DistanceCall call{*d, {x, strides[0]}, {w, strides[1]}, {y, strides[2]}};
  return is_tiled(call) ? distance_u8(call, workspace_for(call).get(), nullptr) : cudaErrorInvalidValue;
}

extern "C" int emulated_norm(int type, int64_t rows, int columns, const void* x, const float* weight,
                             const float* bias, double eps, bool relu, const double* sums, float* mean, float* var,
                             void* y) {
  const NormForwardCall call{{type_of(type), rows, columns, x, weight, bias, eps, relu, mean, var}, sums, y};
  return batch_norm_relu_of_sums_cuda(call, workspace_for(call).get(), nullptr);
}

extern "C" int emulated_norm_backward(int type, int64_t rows, int columns, const void* dy, const void* x,
                                      const float* weight, const float* bias, double eps, bool relu, float* mean,
                                      float* var, void* dx, float* dweight, float* dbias) {
  const NormBackwardCall call{{type_of(type), rows, columns, x, weight, bias, eps, relu, mean, var},
                              dy, dx, dweight, dbias};
  return batch_norm_relu_backward_cuda(call, workspace_for(call).get(), nullptr);
}

extern "C" int emulated_squares(int count, const int* types, const void* const* values, const int64_t* counts,
                                double* sums) {
  SquaresCall call{{}, sums};
  for (int i = 0; i < count; ++i) call.tensors.push_back({type_of(types[i]), values[i], counts[i]});
  return sums_of_squares_cuda(call, workspace_for(call).get(), nullptr);
}

extern "C" void set_emulator(bool copies_at_once, bool reverse_order) {
  emulator::copies = copies_at_once ? emulator::Copies::at_once : emulator::Copies::late;
  emulator::reverse_order = reverse_order;
}

extern "C" int threads_of_last_launch() { return emulator::threads_of_last_launch; }

extern "C" void set_byte_maxima(bool has_byte_maxima) { emulator::byte_maxima = has_byte_maxima; }
