// One element of Eq. 2 and of Eq. 6 and 7, as the paper writes them: what the direct kernels (direct.h) sum, on CPUs and
// on GPUs. The fast kernels have arithmetic of their own (csrc/cpu/simd, elements.h, pairs.h), which rounds otherwise;
// the tests hold all of them to float64 over one table of layers, and that alone keeps them together.
//
// Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020.
#pragma once

#ifdef __CUDACC__
#define ADDERTRAIN_HOST_DEVICE __host__ __device__
#else
#define ADDERTRAIN_HOST_DEVICE
#endif

namespace addertrain {

// Eq. 2, one element: -|x - w|, or |w| - |x - w| where a norm follows (offset-free).
template <typename T>
ADDERTRAIN_HOST_DEVICE inline T similarity(T x, T w, bool offset_free) {
  const T distance = x < w ? w - x : x - w;  // a NaN compares false and comes through the difference
  const T offset = offset_free ? (w < T(0) ? -w : w) : T(0);
  return offset - distance;
}

// Eq. 6 and 7, HT: the clipped difference; a NaN stays a NaN.
template <typename T>
ADDERTRAIN_HOST_DEVICE inline T hard_tanh(T difference) {
  if (difference > T(1)) return T(1);
  if (difference < T(-1)) return T(-1);
  return difference;
}

}  // namespace addertrain
