// Register-only loops of the passes' own instructions: the most that any blocking could reach on this processor.
//
// Operands and sums stay in registers, and nothing is loaded. There are several tile shapes, because none is the fastest
// everywhere; the best of them is the ceiling.
#pragma once

#include "csrc/cpu/kernels.h"

namespace addertrain::cpu {
namespace {

alignas(64) float ceiling_operands[2048];

// Does acc[o][v] += min(x[v], w[o]) `iterations` times and returns the number of elements.
template <int O, int V>
int64_t spin_forward(int64_t iterations) {
  Simd::Reg acc[O][V], x[V], w[O];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) x[v] = Simd::load(ceiling_operands + v * Simd::kLanes);
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o) {
    w[o] = Simd::load(ceiling_operands + (V + o) * Simd::kLanes);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[o][v] = Simd::zero();
  }
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      Simd::hide(w[o]);  // as if it were a new filter, so that nothing is computed once and kept
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) acc[o][v] = Simd::add_min(acc[o][v], x[v], w[o]);
    }
  }
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) Simd::hide(acc[o][v]);
  return iterations * O * V * Simd::kLanes;
}

// Does acc[o][v] += g[v] * HT(w[o] - x[o][v]) `iterations` times and returns the number of elements.
template <int O, int V>
int64_t spin_grad_input(int64_t iterations) {
  Simd::Reg acc[O][V], x[O][V], g[V], w[O];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) g[v] = Simd::load(ceiling_operands + v * Simd::kLanes);
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o) {
    w[o] = Simd::load(ceiling_operands + (V + o) * Simd::kLanes);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      acc[o][v] = Simd::zero();
      x[o][v] = Simd::load(ceiling_operands + (V + o * V + v) * Simd::kLanes);
      Simd::hide(x[o][v]);  // otherwise the compiler would drop the subtraction w - 0
    }
  }
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int o = 0; o < O; ++o) {
      Simd::hide(w[o]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v)
        acc[o][v] = Simd::add_clipped(acc[o][v], g[v], w[o], x[o][v], (o * V + v) % 2 == 1);
    }
  }
#pragma GCC unroll 16
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) Simd::hide(acc[o][v]);
  return iterations * O * V * Simd::kLanes;
}

using Spin = int64_t (*)(int64_t);
constexpr Spin kForwardSpins[] = {spin_forward<3, 4>, spin_forward<4, 2>, spin_forward<2, 5>, spin_forward<4, 4>};
constexpr Spin kGradInputSpins[] = {spin_grad_input<3, 4>, spin_grad_input<2, 4>, spin_grad_input<6, 1>,
                                    spin_grad_input<4, 2>};
constexpr int64_t kNumSpins = 4;

inline int64_t spin(bool is_forward, int64_t variant, int64_t iterations) {
  return (is_forward ? kForwardSpins : kGradInputSpins)[variant % kNumSpins](iterations);
}

}  // namespace
}  // namespace addertrain::cpu
