// The tiled kernels with their planners and launchers, compiled for this machine's processor by the emulator.
#include "csrc/cuda/forward_f32.cu"
#include "csrc/cuda/grad_input_f32.cu"

#include <vector>

namespace {

using namespace addertrain;
using namespace addertrain::cuda;

Type type_of(int type) { return static_cast<Type>(type); }

// Workspaces start as NaN: nothing may be read that was not written. One of another size is not one too small.
template <class Bytes, class Run>
int run(Bytes bytes, Run run_pass) {
  const int64_t size = bytes();
  const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(256, round_up(size, 256)), &std::free);
  std::memset(workspace.get(), 0xff, size);
  return run_pass(workspace.get());
}

}  // namespace

// 0, or 1 where no tile serves the layer. Types in the order of calls.h.
extern "C" int emulated_forward(int type, const Layer* d, const ImageStrides* strides, const void* x, const void* w,
                                void* y, bool offset_free, const float* scale, const float* shift,
                                const void* residual, bool relu, double* sums) {
  if (!is_tiled(*d, strides[0])) return 1;
  const ForwardCall call{*d, type_of(type), {x, strides[0]}, {w, strides[1]}, {y, strides[2]}, offset_free,
                         {scale, shift, residual, relu}, sums};
  return run([&] { return forward_f32_bytes(call); }, [&](void* bytes) { return forward_f32(call, bytes, nullptr); });
}

extern "C" int emulated_grad_input(int type, const Layer* d, const ImageStrides* strides, const void* dy,
                                   const void* x, const void* w, void* dx) {
  if (!is_tiled_grad(*d, strides[0])) return 1;
  const GradInputCall call{*d, type_of(type), {dy, strides[0]}, {x, strides[1]}, {w, strides[2]}, {dx, strides[3]}};
  return run([&] { return grad_input_f32_bytes(call); },
             [&](void* bytes) { return grad_input_f32(call, bytes, nullptr); });
}

extern "C" void set_emulator(bool copies_at_once, bool reverse_order) {
  emulator::copies = copies_at_once ? emulator::Copies::at_once : emulator::Copies::late;
  emulator::reverse_order = reverse_order;
}
