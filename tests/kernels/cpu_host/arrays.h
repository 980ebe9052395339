// Numbers to compute with, and memory that ends where a page begins that nobody may touch.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "device/layer.h"

namespace cpu_host {

using addertrain::Layer;

// `count` values with a forbidden page before and behind: at the end of what lies between, or at its beginning. Results
// start as what no kernel writes.
template <typename T>
class Guarded {
 public:
  Guarded(int64_t count, bool is_at_end) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = sizeof(T) * count;
    const size_t body = (bytes + page - 1) / page * page;
    size_ = body + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || (body > 0 && mprotect(base_ + page, body, PROT_READ | PROT_WRITE) != 0)) {
      std::perror("cpu_host: expected memory, got none");
      std::exit(2);
    }
    data_ = reinterpret_cast<T*>(base_ + page + (is_at_end ? body - bytes : 0));
    for (int64_t i = 0; i < count; ++i) data_[i] = std::numeric_limits<T>::has_quiet_NaN
                                                       ? std::numeric_limits<T>::quiet_NaN()
                                                       : std::numeric_limits<T>::lowest();
  }
  Guarded(const std::vector<T>& values, bool is_at_end) : Guarded(static_cast<int64_t>(values.size()), is_at_end) {
    if (count_ > 0) std::memcpy(data_, values.data(), sizeof(T) * count_);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, size_); }

  T* data() { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + count_); }

 private:
  int64_t count_;
  size_t size_;
  char* base_;
  T* data_;
};

// The same numbers on every machine.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed) {}

  uint64_t bits() {  // SplitMix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int64_t below(int64_t count) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(count)); }
  // Mean 0 and deviation 1: four uniform numbers are near enough to a normal one.
  double normal() {
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(bits() >> 11) * 0x1p-53;
    return (sum - 2.0) * 1.7320508075688772;
  }

 private:
  uint64_t state_;
};

// Rounded to so many significant bits, as operands of 16 bits are: 11 of float16, 8 of bfloat16; 24 change nothing.
inline float rounded(double value, int significant_bits) {
  float narrow = static_cast<float>(value);
  uint32_t word;
  std::memcpy(&word, &narrow, sizeof word);
  const uint32_t dropped = 24 - static_cast<uint32_t>(significant_bits), half = (1u << dropped) >> 1;
  word = (word + half) >> dropped << dropped;
  std::memcpy(&narrow, &word, sizeof word);
  return narrow;
}

// [N][C][area] to [N][area][C], and back with `area` and `C` exchanged.
template <typename T>
std::vector<T> turned(const std::vector<T>& from, int64_t N, int64_t C, int64_t area) {
  std::vector<T> to(from.size());
  for (int64_t n = 0; n < N; ++n)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t i = 0; i < area; ++i) to[(n * area + i) * C + c] = from[(n * C + c) * area + i];
  return to;
}

}  // namespace cpu_host
