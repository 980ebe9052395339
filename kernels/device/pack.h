// Filters as the contractions read them, zeros in the tails, and what each column of the result adds once.
#pragma once

#include "device/geometry.h"
#include "device/platform.h"

namespace addertrain {

enum class Pass { kForward, kGradInput, kPowerGradInput };

constexpr int kPackThreads = 256;

template <class T, class Packed>
struct PackParams {
  Problem problem;
  const T* w;
  ImageStrides w_strides;  // n: filters, c: channels, h, w: taps
  Packed* packed;
  int64_t phase_size;      // elements of a phase
  int steps, pitch;        // k and columns, with their tails
};

// Step k of a column: the filter's element. Forward (r, s, c) of filter n; gradient (r, s, o) of channel n.
template <Pass kPass>
ADDERTRAIN_DEVICE int64_t filter_offset(const Problem& p, const Axis& v, const Axis& h, const ImageStrides& w, int k,
                                        int n) {
  const int tap = k / p.channels, channel = k - tap * p.channels;
  const int r = v.first_tap + tap / h.taps * v.tap_jump, s = h.first_tap + tap % h.taps * h.tap_jump;
  const int64_t filter = kPass == Pass::kForward ? n : channel, c = kPass == Pass::kForward ? channel : n;
  return filter * w.n + c * w.c + r * w.h + s * w.w;
}

// The l1 gradient's filters become (w + 1)/2; those of powers, and words of bytes, stay as they are.
template <Pass kPass, class Packed, class T>
ADDERTRAIN_DEVICE Packed packed_value(T w) {
  if constexpr (kPass != Pass::kGradInput) return w;
  else return from_float<Packed>(0.5f * (to_float(w) + 1.0f));
}

// kColumnsInside: packed[k][n], as the word kernel reads; otherwise packed[n][k], as the tensor cores' kernel does.
template <class T, class Packed, Pass kPass, bool kColumnsInside>
__global__ void __launch_bounds__(kPackThreads) adder_pack_kernel(const __grid_constant__ PackParams<T, Packed> p) {
  const Axis& v = p.problem.vertical[blockIdx.z / p.problem.phases_w];
  const Axis& h = p.problem.horizontal[blockIdx.z % p.problem.phases_w];
  const int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x;
  if (i >= p.phase_size) return;
  const int k = static_cast<int>(kColumnsInside ? i / p.pitch : i % p.steps);
  const int n = static_cast<int>(kColumnsInside ? i % p.pitch : i / p.steps);
  Packed value{};
  if (k < v.taps * h.taps * p.problem.channels && n < p.problem.columns)
    value = packed_value<kPass, Packed>(p.w[filter_offset<kPass>(p.problem, v, h, p.w_strides, k, n)]);
  p.packed[blockIdx.z * p.phase_size + i] = value;
}

constexpr int kColumnThreads = 128;

// Which sum of its filter elements a column adds.
enum class ColumnTerm {
  kNone,             // 0
  kMagnitude,        // sum |w|: the offset-free response
  kMinusSum,         // -sum w: where the kernel adds up 2 min(x, w)
  kMagnitudeMinusSum,
  kNan,              // NaN, if one of them is: saturating hides it
  kPower,            // sum |w|^p: the offset-free response with a power
};

template <class T>
struct ColumnParams {
  const T* w;
  int64_t column_stride, other_stride, r_stride, s_stride;
  int others, R, S;
  ColumnTerm term;
  float* column;
  float power = 1.0f;
};

ADDERTRAIN_DEVICE double column_term(ColumnTerm term, float w, float power) {
  switch (term) {
    case ColumnTerm::kMagnitude: return fabsf(w);
    case ColumnTerm::kMinusSum: return -w;
    case ColumnTerm::kMagnitudeMinusSum: return fabsf(w) - w;
    case ColumnTerm::kNan: return w == w ? 0.0f : w;
    case ColumnTerm::kPower: return power_of(fabsf(w), power);
    default: return 0.0;
  }
}

// A block a column; threads in strides, then pairwise: one order.
template <class T>
__global__ void __launch_bounds__(kColumnThreads) adder_column_kernel(const __grid_constant__ ColumnParams<T> p) {
  double* sums = reinterpret_cast<double*>(dynamic_shared());
  const T* w = p.w + blockIdx.x * p.column_stride;
  double sum = 0.0;
  if (p.term != ColumnTerm::kNone)
    for (int i = threadIdx.x; i < p.others * p.R * p.S; i += kColumnThreads) {
      const int tap = i % (p.R * p.S);
      sum += column_term(p.term, to_float(w[i / (p.R * p.S) * p.other_stride + tap / p.S * p.r_stride +
                                            tap % p.S * p.s_stride]),
                         p.power);
    }
  sums[threadIdx.x] = sum;
  for (unsigned half = kColumnThreads / 2; half > 0; half /= 2) {
    barrier();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) p.column[blockIdx.x] = static_cast<float>(sums[0]);
}

}  // namespace addertrain
