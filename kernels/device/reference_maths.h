// One element of Eq. 2 and of Eq. 6 and 7, as the paper writes them, and those with the p-th power of the distance: what
// the direct kernels (direct.h) sum, on CPUs and on GPUs. The fast kernels have arithmetic of their own (csrc/cpu/simd,
// elements.h, pairs.h), which rounds differently; the tests compare all of them with float64 over one table of layers,
// and that alone keeps them together.
//
// Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define ADDERTRAIN_HOST_DEVICE __host__ __device__
#else
#define ADDERTRAIN_HOST_DEVICE
#endif

namespace addertrain {

// Eq. 2, one element: -|x - w|, or |w| - |x - w| where a norm follows (offset-free). A NaN stays a NaN.
template <typename T>
ADDERTRAIN_HOST_DEVICE inline T similarity(T x, T w, bool offset_free) {
  using std::fabs;
  return (offset_free ? fabs(w) : T(0)) - fabs(x - w);
}

// Eq. 6 and 7, HT: the clipped difference; a NaN stays a NaN.
template <typename T>
ADDERTRAIN_HOST_DEVICE inline T hard_tanh(T difference) {
  if (difference > T(1)) return T(1);
  if (difference < T(-1)) return T(-1);
  return difference;
}

// The elements of a pass as functions: of the response, term(x, w); of a gradient, slope(difference).
template <typename T>
struct Similarity {
  bool offset_free;
  ADDERTRAIN_HOST_DEVICE T operator()(T x, T w) const { return similarity(x, w, offset_free); }
};

template <typename T>
struct HardTanh {
  ADDERTRAIN_HOST_DEVICE T operator()(T difference) const { return hard_tanh(difference); }
};

// -|x - w|^p, or |w|^p - |x - w|^p where a norm follows ("Universal Adder Neural Networks", arXiv 2105.14202).
template <typename T>
struct PowerSimilarity {
  double p;
  bool offset_free;
  ADDERTRAIN_HOST_DEVICE T operator()(T x, T w) const {
    using std::fabs, std::pow;
    return (offset_free ? pow(fabs(w), T(p)) : T(0)) - pow(fabs(x - w), T(p));
  }
};

// p |d|^(p-1) sgn(d).
template <typename T>
struct PowerSlope {
  double p;
  ADDERTRAIN_HOST_DEVICE T operator()(T difference) const {
    using std::copysign, std::fabs, std::pow;
    return copysign(T(p) * pow(fabs(difference), T(p - 1.0)), difference);
  }
};

}  // namespace addertrain
