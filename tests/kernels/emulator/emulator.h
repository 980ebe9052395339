// Runs the GPU kernels' own source as host C++: blocks one after another, a block's threads as fibers. A barrier is a
// barrier; an asynchronous copy happens as late as its wait allows, or at once. Shared memory has its exact size and
// starts as NaN; vector accesses and copies assert their alignment.
//
// It cannot see divergence within a warp, memory ordering, bank conflicts, registers or speed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "cuda_runtime_api.h"
#include "fibers.h"

#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define ADDERTRAIN_DEVICE inline

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulator {

// A check that fails ends the launch with an error, as a fault ends a GPU's: the thread goes no further.
inline bool has_failed = false;
inline bool is_inside = false;  // a thread of a block, not who runs it

#define EMULATOR_CHECK(condition)                                                                 \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      std::fprintf(stderr, "emulator: %s failed at %s:%d\n", #condition, __FILE__, __LINE__);     \
      emulator::has_failed = true;                                                                \
      while (emulator::is_inside) Fiber::pause();                                                 \
    }                                                                                             \
  } while (0)

enum class Copies { at_once, late };     // at once finds overwritten stages, late finds missing waits
inline Copies copies = Copies::late;
inline bool byte_maxima = false;         // as sm_120f has them
inline bool reverse_order = false;       // of a block's threads between two barriers

struct Copy {
  void* to;
  const void* from;  // null: zeros
  int bytes;
};

struct Thread {
  dim3 index;
  std::vector<std::vector<Copy>> groups{1};  // committed ones, and last the open one
  unsigned num_exchanges = 0;                // with the other lanes of the warp
};

struct Lane {
  Fiber fiber;
  Thread thread;
};

inline std::vector<std::unique_ptr<Lane>> lanes;
inline Thread* self = nullptr;
inline dim3 block;
inline unsigned char* shared = nullptr;
inline std::function<void()> body;
inline int threads_of_last_launch = 0;   // of a block; kernels differ in it

inline void run(const Copy& copy) {
  if (copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
  else std::memset(copy.to, 0, copy.bytes);
}
inline void copy(void* to, const void* from, int bytes, bool is_valid) {
  EMULATOR_CHECK(reinterpret_cast<uintptr_t>(to) % bytes == 0);
  EMULATOR_CHECK(!is_valid || reinterpret_cast<uintptr_t>(from) % bytes == 0);
  const Copy one{to, is_valid ? from : nullptr, bytes};
  if (copies == Copies::at_once) run(one);
  else self->groups.back().push_back(one);
}
inline void wait(size_t pending) {
  auto& groups = self->groups;
  while (groups.size() - 1 > pending) {
    for (const Copy& one : groups.front()) run(one);
    groups.erase(groups.begin());
  }
}

inline void run_block(unsigned num_threads) {
  while (lanes.size() < num_threads) lanes.push_back(std::make_unique<Lane>());
  for (unsigned t = 0; t < num_threads; ++t) {
    lanes[t]->thread = Thread{.index = dim3(t, 0, 0)};
    lanes[t]->fiber.start([] { body(); });
  }
  for (bool is_over = false; !is_over;) {  // a round: everybody up to the next barrier
    unsigned ended = 0;
    for (unsigned i = 0; i < num_threads; ++i) {
      Lane& lane = *lanes[reverse_order ? num_threads - 1 - i : i];
      self = &lane.thread;
      is_inside = true;
      lane.fiber.resume();
      is_inside = false;
      if (has_failed) return;
      ended += lane.fiber.has_ended();
    }
    EMULATOR_CHECK(ended == 0 || ended == num_threads);  // some returned while others wait at a barrier
    is_over = ended == num_threads || has_failed;
  }
}

}  // namespace emulator

#define threadIdx (emulator::self->index)
#define blockIdx (emulator::block)

namespace addertrain {

inline unsigned char* dynamic_shared() { return emulator::shared; }
inline void barrier() { Fiber::pause(); }
inline void copy_async16(void* to, const void* from, bool is_valid) { emulator::copy(to, from, 16, is_valid); }
inline void copy_async4(void* to, const void* from, bool is_valid) { emulator::copy(to, from, 4, is_valid); }
inline void copy_commit() { emulator::self->groups.emplace_back(); }
template <int kPending>
void copy_wait() {
  emulator::wait(kPending);
}
template <class V, class T>
V load_vector(const T* from) {
  EMULATOR_CHECK(reinterpret_cast<uintptr_t>(from) % alignof(V) == 0);
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class V, class T>
void store_vector(T* to, V value) {
  EMULATOR_CHECK(reinterpret_cast<uintptr_t>(to) % alignof(V) == 0);
  std::memcpy(to, &value, sizeof value);
}
inline float saturate(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }  // of a NaN 0, as on the device

// Packed float32, as sm_100 has it: each half is rounded by itself.
inline Two<float> subtract(Two<float> a, Two<float> b) { return {a.first - b.first, a.second - b.second}; }
// As exact as this machine's functions, where the device's approximate; denormal numbers are 0 on both.
inline float power_of(float d, float p) {
  return d < std::numeric_limits<float>::min() ? 0.0f : std::exp2(p * std::log2(d));
}
inline Two<float> add_saturated_products(Two<float> acc, float g, Two<float> a, Two<float> b) {
  const Two<float> elements{saturate(a.first - b.first), saturate(a.second - b.second)};
  return {std::fma(g, elements.first, acc.first), std::fma(g, elements.second, acc.second)};
}

inline int32_t add_byte_differences(int32_t sum, uint32_t a, uint32_t b) {
  for (int i = 0; i < 32; i += 8) sum += std::abs(static_cast<int>(a >> i & 255) - static_cast<int>(b >> i & 255));
  return sum;
}

inline bool has_byte_maxima() { return emulator::byte_maxima; }
inline int32_t add_bytes(int32_t sum, uint32_t bytes) {
  for (int i = 0; i < 32; i += 8) sum += bytes >> i & 255;
  return sum;
}
inline int32_t add_twice_byte_maxima(int32_t sum, uint32_t a, uint32_t b) {
  for (int i = 0; i < 32; i += 8) sum += 2 * std::max(a >> i & 255, b >> i & 255);
  return sum;
}

template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, int threads, int shared_bytes, cudaStream_t, const Params& p) {
  emulator::body = [kernel, &p] { kernel(p); };
  emulator::threads_of_last_launch = threads;
  emulator::has_failed = false;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        const std::unique_ptr<void, decltype(&std::free)> memory(
            std::aligned_alloc(16, (std::max(shared_bytes, 1) + 15) / 16 * 16), &std::free);
        emulator::shared = static_cast<unsigned char*>(memory.get());
        std::memset(emulator::shared, 0xff, shared_bytes);  // NaN in every format
        emulator::block = dim3(x, y, z);
        emulator::run_block(threads);
        if (emulator::has_failed) return cudaErrorLaunchFailure;
      }
  return cudaSuccess;
}

}  // namespace addertrain

#include "half.h"
