// What the kernels of an instruction set offer to the operators, in plain C++ without torch.
//
// A call is divided into units: a few complete images each, or a band of rows of one image. Units are independent, each
// output belongs to one unit, and the division depends on the layer's sizes alone, so that any number of threads adds
// the same numbers in the same order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc/cpu/power_fit.h"
#include "device/layer.h"

namespace addertrain::cpu {

// An input gradient of at most so many channels lays filters along the registers (grad_input/thin.h).
constexpr int64_t kThinChannels = 8;

enum class Layout { kNchw, kNhwc };

struct DenseImage {
  const float* data;
  Layout layout;
};

// How dense filters lie: as w_ocrs, or w_orsc (channels-last).
enum class FilterOrder { kChannelsOutermost, kChannelsInnermost };

// `layer` holds the sizes of one of the groups, here and below.
struct DenseForwardCall {
  Layer layer;
  DenseImage x;
  const float* w;
  FilterOrder w_order;
  float* y;
  Layout y_layout;
  bool offset_free;
  int64_t groups = 1;
};

struct DenseGradInputCall {
  Layer layer;
  DenseImage dy;
  DenseImage x;
  const float* w;
  FilterOrder w_order;
  float* dx;  // in the layout of x
  bool only_non_zeros;  // where x is 0, so is dX
  int64_t groups = 1;
};

// The sums of dY X of a layer in groups.
struct DenseGradWeightCall {
  Layer layer;
  DenseImage dy;
  DenseImage x;
  int64_t groups;
};

// The three passes with the p-th power of the distance, 1 < p < 2, for layers without groups.
struct PowerForwardCall {
  DenseForwardCall of;
  const PowerFit* fit;
};

struct PowerGradInputCall {
  DenseGradInputCall of;
  const PowerFit* fit;
};

struct PowerGradWeightCall {
  Layer layer;
  DenseImage dy;
  DenseImage x;
  const float* w;
  FilterOrder w_order;
  float* dw;  // in the order of w
  const PowerFit* fit;
};

// The filter gradient of layers in many small groups (grouped/grad_weight.h): `compute` gives the sums of each unit, and
// `merge` adds them over the units.
struct GroupedGradWeight {
  int64_t (*num_units)(const DenseGradWeightCall&);
  int64_t (*unit_floats)(const DenseGradWeightCall&);
  void (*compute)(const DenseGradWeightCall&, int64_t unit_begin, int64_t unit_end, float* sums);
  void (*merge)(const DenseGradWeightCall&, const float* sums, int64_t filter_begin, int64_t filter_end, float* dw);
};

// The functions of one pass. The filters are packed once, block by block, into `packed_floats` floats; then the units are
// computed.
template <typename Call>
struct PassFunctions {
  int64_t (*packed_floats)(const Call&);
  int64_t (*num_blocks)(const Call&);
  void (*pack)(const Call&, int64_t block, float* packed);
  int64_t (*num_units)(const Call&);
  void (*compute)(const Call&, const float* packed, int64_t unit_begin, int64_t unit_end);
};

// Both gradients of a layer behind a ReLU (grad_input/both.h), from filters that `grad_input` has packed. Tasks compute
// dX and add dY X to one of several parts, which take `sums_floats` floats. `merge` adds up the parts of a block of
// channels and writes dW in the order of w.
struct BothGradients {
  int64_t (*num_tasks)(const DenseGradInputCall&);
  int64_t (*sums_floats)(const DenseGradInputCall&);
  void (*compute)(const DenseGradInputCall&, const float* packed, int64_t task_begin, int64_t task_end, float* sums);
  void (*merge)(const DenseGradInputCall&, const float* sums, int64_t block, float* dw);
};

// A batch norm over x as [rows][C], channels-last.
struct DenseNormCall {
  const float* x;
  int64_t rows, C;
  bool relu;
};

// The passes of norm/passes.h over the floats [begin, end) of x, which are complete rows. Scale, shift and the other
// coefficients hold C values each.
struct NormPasses {
  void (*moments)(const float* x, int64_t begin, int64_t end, int64_t C, double* sums, double* squares);
  void (*apply)(const DenseNormCall&, const float* scale, const float* shift, int64_t begin, int64_t end, float* y);
  void (*apply_residual)(const DenseNormCall&, const float* residual, const float* scale, const float* shift,
                         int64_t begin, int64_t end, float* y);
  void (*gradient_sums)(const DenseNormCall&, const float* dy, const float* scale, const float* shift,
                        const float* mean, int64_t begin, int64_t end, double* sums, double* products);
  void (*residual_gradient_sums)(const DenseNormCall&, const float* dy, const float* y, const float* mean,
                                 int64_t begin, int64_t end, double* sums, double* products, float* g);
  void (*apply_gradient)(const DenseNormCall&, const float* dy, const float* scale, const float* shift,
                         const float* slope, const float* offset, int64_t begin, int64_t end, float* dx);
};

// The sum of squares of `count` values, in float64 (squares.h).
struct SquareSums {
  double (*of_floats)(const float* values, int64_t count);
  double (*of_doubles)(const double* values, int64_t count);
};

struct Kernels {
  const char* name;
  NormPasses norm;
  SquareSums squares;
  PassFunctions<DenseForwardCall> forward;
  PassFunctions<DenseGradInputCall> grad_input;
  BothGradients both_gradients;
  // For layers in many small groups.
  PassFunctions<DenseForwardCall> grouped_forward;
  PassFunctions<DenseGradInputCall> grouped_grad_input;
  GroupedGradWeight grouped_grad_weight;
  // For the p-th power of the distance; a unit of the filter gradient is a part of the filters.
  PassFunctions<PowerForwardCall> power_forward;
  PassFunctions<PowerGradInputCall> power_grad_input;
  PassFunctions<PowerGradWeightCall> power_grad_weight;
  // Runs a register-only loop of a pass (ceilings.h) and returns how many elements it has computed.
  int64_t (*spin)(bool is_forward, int64_t variant, int64_t iterations);
};

const Kernels& avx512_kernels();
const Kernels& avx512_narrow_kernels();
const Kernels& avx2_kernels();
const Kernels& neon_kernels();
const Kernels& portable_kernels();

}  // namespace addertrain::cpu
