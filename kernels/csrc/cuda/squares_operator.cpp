// Sums of squares on GPUs: layouts, allocation and stream.
#include "csrc/cuda/squares.h"
#include "csrc/cuda/torch_side.h"

namespace addertrain::cuda {
namespace {

Tensor sums_of_squares(const std::vector<Tensor>& tensors) {
  STD_TORCH_CHECK(!tensors.empty(), "sums_of_squares: expected at least one tensor");
  const Tensor& like = tensors[0];
  const DeviceGuard guard(like.get_device_index());
  Tensor sums = torch::stable::empty({static_cast<int64_t>(tensors.size())}, ScalarType::Double, std::nullopt,
                                     like.device());
  std::vector<Tensor> kept;  // copies live until their kernels are queued
  SquaresCall call{{}, sums.mutable_data_ptr<double>()};
  for (const Tensor& tensor : tensors) {
    STD_TORCH_CHECK(tensor.device() == like.device(), "sums_of_squares: expected tensors on one device");
    kept.push_back(is_without_gaps(tensor) ? tensor : torch::stable::contiguous(tensor));
    call.tensors.push_back({type_of(tensor), kept.back().const_data_ptr(), tensor.numel()});
  }
  const Tensor workspace = workspace_for(call, like);
  check_launch(sums_of_squares_cuda(call, workspace.mutable_data_ptr(), current_stream(like)));
  return sums;
}

}  // namespace
}  // namespace addertrain::cuda

STABLE_TORCH_LIBRARY_IMPL(addertrain, CUDA, m) { m.impl("sums_of_squares", TORCH_BOX(&addertrain::cuda::sums_of_squares)); }
