// onnxruntime's operator addertrain::AdderConv2d, on the CPU kernels: x_nchw, w_ocrs -> y_nopq, float32.
//
// This is plain C++ on onnxruntime's C interface, without torch: a session in any language registers this library and
// runs the files that `addertrain ckpt convert --operators own` writes. Groups follow from the channels of x and w. The
// attributes are stride, padding and dilation, two integers each, and offset_free, 0 or 1 (Eq. 2 without or with the sum
// of |w|).
#include <onnxruntime_c_api.h>

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "csrc/cpu/choices.h"

namespace addertrain::cpu {
namespace {

using Pair = std::array<int64_t, 2>;
using Shape = std::vector<int64_t>;

constexpr const char* kDomain = "addertrain";
constexpr const char* kName = "AdderConv2d";

// A status that is an error, on its way to onnxruntime, which owns it.
struct Failure {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status) throw Failure{status};
}

// The status of `work`, for onnxruntime's side of the interface, which no exception may cross.
template <typename Work>
OrtStatus* status_of(const OrtApi* api, const Work& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

// A node of a graph: its attributes, read once.
struct Node {
  const OrtApi* api;
  Pair stride, padding, dilation;
  int64_t offset_free;

  void read(const OrtKernelInfo* info) {
    stride = pair_of(info, "stride");
    padding = pair_of(info, "padding");
    dilation = pair_of(info, "dilation");
    check(api->KernelInfoGetAttribute_int64(info, "offset_free", &offset_free));
    if (stride[0] < 1 || stride[1] < 1 || dilation[0] < 1 || dilation[1] < 1 || padding[0] < 0 || padding[1] < 0) {
      refuse("expected positive strides and dilations and no negative padding");
    }
  }

  void compute(OrtKernelContext* context) const {
    const OrtValue *x = nullptr, *w = nullptr;
    check(api->KernelContext_GetInput(context, 0, &x));
    check(api->KernelContext_GetInput(context, 1, &w));
    const Shape x_nchw = shape_of(x), w_ocrs = shape_of(w);
    if (x_nchw.size() != 4 || w_ocrs.size() != 4 || w_ocrs[1] < 1 || w_ocrs[2] < 1 || w_ocrs[3] < 1 ||
        x_nchw[1] % w_ocrs[1] != 0) {
      refuse("expected x [N, C, H, W] and w [O, C / groups, R, S]");
    }
    const int64_t groups = x_nchw[1] / w_ocrs[1];
    if (groups < 1 || w_ocrs[0] % groups != 0) refuse("expected a number of filters that the groups divide");
    const Layer d = layer_of(x_nchw, w_ocrs);
    if (d.P < 1 || d.Q < 1) refuse("expected an image that is at least as large as the filter");
    const Shape y_nopq{d.N, d.O, d.P, d.Q};
    OrtValue* y = nullptr;
    check(api->KernelContext_GetOutput(context, 0, y_nopq.data(), y_nopq.size(), &y));
    if (d.N == 0 || d.O == 0) return;
    // The interface has no read-only access; x and w are only read.
    const float* pixels = data_of(const_cast<OrtValue*>(x));
    const float* filters = data_of(const_cast<OrtValue*>(w));
    const DenseForwardCall call{d, {pixels, Layout::kNchw}, filters, FilterOrder::kChannelsOutermost, data_of(y),
                                Layout::kNchw, offset_free != 0};
    if (groups == 1) return run(context, call);
    const DenseForwardCall small = whole_of(call, groups);
    if (share_registers(small.layer)) return run(context, small);
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t n = 0; n < d.N; ++n) run(context, group_of(call, groups, g, n));
  }

 private:
  [[noreturn]] void refuse(const char* why) const {
    const std::string line = std::string(kDomain) + "::" + kName + ": " + why + ".";
    throw Failure{api->CreateStatus(ORT_INVALID_ARGUMENT, line.c_str())};
  }

  Pair pair_of(const OrtKernelInfo* info, const char* name) const {
    size_t count = 0;
    check(api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &count));
    Pair pair{};
    if (count != pair.size()) refuse("expected two integers in each of stride, padding and dilation");
    check(api->KernelInfoGetAttributeArray_int64(info, name, pair.data(), &count));
    return pair;
  }

  Shape shape_of(const OrtValue* value) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api->GetTensorTypeAndShape(value, &info));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api->ReleaseTensorTypeAndShapeInfo)> owner(
        info, api->ReleaseTensorTypeAndShapeInfo);
    size_t rank = 0;
    check(api->GetDimensionsCount(info, &rank));
    Shape shape(rank);
    check(api->GetDimensions(info, shape.data(), rank));
    return shape;
  }

  float* data_of(OrtValue* value) const {
    void* data = nullptr;
    check(api->GetTensorMutableData(value, &data));
    return static_cast<float*>(data);
  }

  Layer layer_of(const Shape& x, const Shape& w) const {
    const auto outputs = [this](int64_t size, int64_t taps, int axis) {
      const int64_t rest = size + 2 * padding[axis] - dilation[axis] * (taps - 1) - 1;
      return rest < 0 ? 0 : rest / stride[axis] + 1;
    };
    return {x[0],      x[1],      x[2],       x[3],       w[0],        w[2],       w[3], outputs(x[2], w[2], 0),
            outputs(x[3], w[3], 1), stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
  }

  // All groups at once, by the sizes of one.
  static DenseForwardCall whole_of(const DenseForwardCall& call, int64_t groups) {
    DenseForwardCall whole = call;
    whole.layer.C /= groups, whole.layer.O /= groups, whole.groups = groups;
    return whole;
  }

  // One group of one image, whose channels lie side by side in the planes of NCHW.
  static DenseForwardCall group_of(const DenseForwardCall& whole, int64_t groups, int64_t g, int64_t n) {
    DenseForwardCall call = whole;
    Layer& d = call.layer;
    d.N = 1, d.C /= groups, d.O /= groups;
    call.x.data += (n * groups + g) * d.C * d.H * d.W;
    call.w += g * d.O * d.C * d.R * d.S;
    call.y += (n * groups + g) * d.O * d.P * d.Q;
    return call;
  }

  // Packs, then computes, on onnxruntime's own threads; a unit has one order of sums, so their number changes no bit.
  void run(OrtKernelContext* context, const DenseForwardCall& call) const {
    const PassFunctions<DenseForwardCall>& pass = pass_of(call);
    const std::unique_ptr<float[]> packed(new float[pass.packed_floats(call)]);
    struct Work {
      const PassFunctions<DenseForwardCall>& pass;
      const DenseForwardCall& call;
      float* packed;
    } work{pass, call, packed.get()};
    const auto pack = [](void* data, size_t block) {
      const Work& work = *static_cast<Work*>(data);
      work.pass.pack(work.call, static_cast<int64_t>(block), work.packed);
    };
    const auto compute = [](void* data, size_t unit) {
      const Work& work = *static_cast<Work*>(data);
      work.pass.compute(work.call, work.packed, static_cast<int64_t>(unit), static_cast<int64_t>(unit) + 1);
    };
    // 0 batches: onnxruntime decides how many indices a thread takes at a time.
    check(api->KernelContext_ParallelFor(context, pack, pass.num_blocks(call), 0, &work));
    check(api->KernelContext_ParallelFor(context, compute, pass.num_units(call), 0, &work));
  }
};

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return status_of(api, [&] {
    auto node = std::make_unique<Node>(Node{api, {}, {}, {}, 0});
    node->read(info);
    *kernel = node.release();
  });
}

// Entries that stay null belong to optional features that this operator does not have.
OrtCustomOp adder_conv2d() {
  OrtCustomOp op{};
  op.version = ORT_API_VERSION;
  op.GetName = [](const OrtCustomOp*) { return kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 2; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputType = op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputCharacteristic = op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) {
    return INPUT_OUTPUT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const Node& node = *static_cast<const Node*>(kernel);
    return status_of(node.api, [&] { node.compute(context); });
  };
  op.KernelDestroy = [](void* node) { delete static_cast<Node*>(node); };
  return op;
}

}  // namespace
}  // namespace addertrain::cpu

// What onnxruntime looks for in a library of operators. The operator and its domain live as long as the process.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                              const OrtApiBase* base) {
  static const OrtCustomOp op = addertrain::cpu::adder_conv2d();
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (!api) {  // an onnxruntime that is older than the headers this was compiled with
    const OrtApi* oldest = base->GetApi(1);
    return oldest->CreateStatus(ORT_NOT_IMPLEMENTED, "addertrain: expected an onnxruntime as new as its headers were.");
  }
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* status = api->CreateCustomOpDomain(addertrain::cpu::kDomain, &domain)) return status;
  if (OrtStatus* status = api->CustomOpDomain_Add(domain, &op)) return status;
  return api->AddCustomOpDomain(options, domain);
}
