// What an instruction set's kernels offer to the operators: plain C++, no torch.
//
// A call is cut into units (a few whole images, or a band of rows of one). Units are independent, each output belongs
// to one unit, and the cut depends on the layer's sizes alone: the same sums in the same order for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc/cpu/power_fit.h"
#include "device/layer.h"

namespace addertrain::cpu {

// With at most so many channels an input gradient lays filters along the registers instead (grad_input/thin.h).
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

// sum dY X of a layer in groups.
struct DenseGradWeightCall {
  Layer layer;
  DenseImage dy;
  DenseImage x;
  int64_t groups;
};

// The same with the p-th power of the distance, 1 < p < 2, for layers without groups.
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

// Filter gradients of layers in many small groups (grouped/grad_weight.h): the sums of every unit, then all of them.
struct GroupedGradWeight {
  int64_t (*num_units)(const DenseGradWeightCall&);
  int64_t (*unit_floats)(const DenseGradWeightCall&);
  void (*compute)(const DenseGradWeightCall&, int64_t unit_begin, int64_t unit_end, float* sums);
  void (*merge)(const DenseGradWeightCall&, const float* sums, int64_t filter_begin, int64_t filter_end, float* dw);
};

// The functions of one pass: pack the filters once (a block of filters at a time), then compute units. `packed` has
// `packed_floats`.
template <typename Call>
struct PassFunctions {
  int64_t (*packed_floats)(const Call&);
  int64_t (*num_blocks)(const Call&);
  void (*pack)(const Call&, int64_t block, float* packed);
  int64_t (*num_units)(const Call&);
  void (*compute)(const Call&, const float* packed, int64_t unit_begin, int64_t unit_end);
};

// Both gradients of a layer behind a ReLU (grad_input/both.h): the input gradient with the same packed filters as above,
// and sum dY X. Tasks compute, and sum in parts; these are merged, a block of channels at a time, in the order of w.
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

// What norm/passes.h does to the floats [begin, end) of x, whole rows; scale, shift and the others hold C values.
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
  // Of layers in many small groups.
  PassFunctions<DenseForwardCall> grouped_forward;
  PassFunctions<DenseGradInputCall> grouped_grad_input;
  GroupedGradWeight grouped_grad_weight;
  // With the p-th power of the distance; a unit of the last is a part of the filters.
  PassFunctions<PowerForwardCall> power_forward;
  PassFunctions<PowerGradInputCall> power_grad_input;
  PassFunctions<PowerGradWeightCall> power_grad_weight;
  // Runs a register-only loop of a pass (ceilings.h) and returns how many elements that was.
  int64_t (*spin)(bool is_forward, int64_t variant, int64_t iterations);
};

const Kernels& avx512_kernels();
const Kernels& avx512_narrow_kernels();
const Kernels& avx2_kernels();
const Kernels& neon_kernels();
const Kernels& portable_kernels();

}  // namespace addertrain::cpu
