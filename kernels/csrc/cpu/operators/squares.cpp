// Sums of squares on CPUs: pieces, threads and the order in which pieces are added. A gradient's pieces depend on its size
// alone, so that any number of threads gives the same bits.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <vector>

#include "csrc/cpu/dispatch.h"
#include "csrc/tensors.h"

namespace addertrain::cpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kPieceValues = 16384;  // 2 us: threads share even one layer, and lanes are folded rarely

struct SquaresPiece {
  const void* values;
  int64_t count;
  bool is_wide;  // float64, else float32
};

// `t` itself where it is float32 or float64 without gaps, otherwise such a copy; that of 16 bits is exact.
Tensor readable(const Tensor& t) {
  const bool is_narrow = t.scalar_type() == ScalarType::Half || t.scalar_type() == ScalarType::BFloat16;
  STD_TORCH_CHECK(is_narrow || t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double,
                  "sums_of_squares: expected floating-point tensors");
  const Tensor wide = is_narrow ? torch::stable::to(t, ScalarType::Float) : t;
  return is_without_gaps(wide) ? wide : torch::stable::contiguous(wide);
}

Tensor sums_of_squares(const std::vector<Tensor>& tensors) {
  STD_TORCH_CHECK(!tensors.empty(), "sums_of_squares: expected at least one tensor");
  std::vector<Tensor> kept;
  std::vector<SquaresPiece> pieces;
  std::vector<size_t> ends;
  for (const Tensor& tensor : tensors) {
    STD_TORCH_CHECK(tensor.device() == tensors[0].device(), "sums_of_squares: expected tensors on one device");
    kept.push_back(readable(tensor));
    const Tensor& t = kept.back();
    const bool is_wide = t.scalar_type() == ScalarType::Double;
    const char* data = static_cast<const char*>(t.const_data_ptr());
    for (int64_t i = 0; i < t.numel(); i += kPieceValues)
      pieces.push_back({data + i * (is_wide ? 8 : 4), std::min(kPieceValues, t.numel() - i), is_wide});
    ends.push_back(pieces.size());
  }
  std::vector<double> sums(pieces.size());
  const SquareSums& sum = kernels_for(kWholeRegister).squares;
  torch::stable::parallel_for(0, static_cast<int64_t>(pieces.size()), 8, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const SquaresPiece& p = pieces[i];
      sums[i] = p.is_wide ? sum.of_doubles(static_cast<const double*>(p.values), p.count)
                          : sum.of_floats(static_cast<const float*>(p.values), p.count);
    }
  });
  Tensor result = torch::stable::empty({static_cast<int64_t>(tensors.size())}, ScalarType::Double, std::nullopt,
                                       tensors[0].device());
  double* to = result.mutable_data_ptr<double>();
  size_t piece = 0;
  for (const size_t end : ends) {
    *to = 0;
    for (; piece < end; ++piece) *to += sums[piece];
    ++to;
  }
  return result;
}

}  // namespace
}  // namespace addertrain::cpu

STABLE_TORCH_LIBRARY_IMPL(addertrain, CPU, m) { m.impl("sums_of_squares", TORCH_BOX(&addertrain::cpu::sums_of_squares)); }
