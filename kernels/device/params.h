// What a contraction kernel is told: one struct for both arithmetics, passed by value.
#pragma once

#include "device/geometry.h"

namespace addertrain {

// Where k is split, a block of the second pass owns kSplitRows positions of kSplitLanes columns; a thread every
// kSplitSlots-th of the positions.
constexpr int kSplitLanes = 16, kSplitSlots = 16, kSplitRows = 64;

// y = relu((v + column[n]) * scale[n] + shift[n] + residual), the parts that are there; statistics are of
// v + column[n].
template <class Out>
struct Epilogue {
  const float* column;   // the filters' own sums, or NaN where one of a channel's filters holds one
  const float* scale;    // and shift, or null
  const float* shift;
  const Out* residual;   // with the result's strides, or null
  bool relu;
  float* partial;        // instead of a result: this split's sums, [split][position][column]
  float* statistics;     // or null: [tile][slot][sum, sum of squares about its mean][column]
};

// How four (float32) or eight neighbouring columns of an image may be reached.
struct Access {
  bool is_vector;  // by one access of 16 bytes
  bool is_dense;   // row m at m*columns: no division to find it
};

// Powers of two, and each other's inverse.
struct Scale {
  float there, back;
};

template <class Word, class Out>
struct ContractParams {
  Problem problem;
  const Word* a;
  const Word* b;           // packed filters, one block a phase
  const Out* x;            // input gradient: where HT is taken
  Out* out;
  ImageStrides x_strides;
  Access x_access, out_access;
  Epilogue<Out> epilogue;
  int64_t b_phase;         // elements of B a phase
  int b_pitch;             // between its rows
  int tiles_n, slabs_per_split;
  int64_t split_size;      // outputs
  const Scale* g_scale;    // bfloat16 input gradient: what brings dY into float16, and the sums back; else null
  float power = 1.0f;      // of the distance
};

}  // namespace addertrain
