// The device code of device/direct.h as a host library: what a GPU's threads run, here one output after the other.
#include <cmath>
#include <cstring>
#include <limits>

#include "device/direct.h"

namespace {

using namespace addertrain;

// bfloat16 as a GPU has it: the upper half of a float, rounded to nearest even.
struct Bfloat16 {
  uint16_t bits;

  explicit Bfloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof(word));
    const bool is_nan = value != value;
    bits = is_nan ? 0x7fc0 : static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
  }
  operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof(value));
    return value;
  }
};

// In reverse: no output may lean on one before it.
template <typename Pass>
void run(const Pass& pass) {
  for (auto i = pass.count(); i-- > 0;) pass(i);
}

template <typename Acc, typename T, typename Index>
void forward(const Layer& d, const ImageStrides* strides, const void* x, const void* w, void* y, bool offset_free,
             Index groups) {
  run(DirectForward<Acc, T, Similarity<Acc>, Index>{d, static_cast<const T*>(x), strides[0], static_cast<const T*>(w),
                                                    strides[1], static_cast<T*>(y), strides[2], {offset_free}, groups});
}

template <typename Acc, typename T, typename Index>
void grad_input(const Layer& d, const ImageStrides* strides, const void* dy, const void* x, const void* w, void* dx,
                Index groups) {
  run(DirectGradInput<Acc, T, HardTanh<Acc>, Index>{d, static_cast<const T*>(dy), strides[0], static_cast<const T*>(x),
                                                    strides[1], static_cast<const T*>(w), strides[2],
                                                    static_cast<T*>(dx), strides[3], groups});
}

// The types in the order of launchers.h: float64, float32, float16, bfloat16.
template <typename Index>
void forward_of(int type, const Layer& d, const ImageStrides* strides, const void* x, const void* w, void* y,
                bool offset_free, Index groups) {
  switch (type) {
    case 0: return forward<double, double>(d, strides, x, w, y, offset_free, groups);
    case 1: return forward<float, float>(d, strides, x, w, y, offset_free, groups);
    case 2: return forward<float, _Float16>(d, strides, x, w, y, offset_free, groups);
    case 3: return forward<float, Bfloat16>(d, strides, x, w, y, offset_free, groups);
  }
}

template <typename Index>
void grad_input_of(int type, const Layer& d, const ImageStrides* strides, const void* dy, const void* x, const void* w,
                   void* dx, Index groups) {
  switch (type) {
    case 0: return grad_input<double, double>(d, strides, dy, x, w, dx, groups);
    case 1: return grad_input<float, float>(d, strides, dy, x, w, dx, groups);
    case 2: return grad_input<float, _Float16>(d, strides, dy, x, w, dx, groups);
    case 3: return grad_input<float, Bfloat16>(d, strides, dy, x, w, dx, groups);
  }
}

}  // namespace

// is_short: with positions and offsets of 32 bits, as GPUs use them for all but huge tensors.
extern "C" void adder2d(int type, const Layer* d, const ImageStrides* strides, const void* x, const void* w, void* y,
                        bool offset_free, int64_t groups, bool is_short) {
  if (is_short) forward_of(type, *d, strides, x, w, y, offset_free, static_cast<int32_t>(groups));
  else forward_of(type, *d, strides, x, w, y, offset_free, groups);
}

extern "C" void adder2d_grad_input(int type, const Layer* d, const ImageStrides* strides, const void* dy,
                                   const void* x, const void* w, void* dx, int64_t groups, bool is_short) {
  if (is_short) grad_input_of(type, *d, strides, dy, x, w, dx, static_cast<int32_t>(groups));
  else grad_input_of(type, *d, strides, dy, x, w, dx, groups);
}

extern "C" double similarity_of(double x, double w, bool offset_free) { return similarity(x, w, offset_free); }
extern "C" double hard_tanh_of(double difference) { return hard_tanh(difference); }
