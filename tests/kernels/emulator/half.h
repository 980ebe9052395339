// 16-bit numbers for the emulator, rounded to nearest even once per operation, as the device does.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  _Float16 v;

  __half() = default;
  explicit __half(float value) : v(static_cast<_Float16>(value)) {}
  explicit operator float() const { return static_cast<float>(v); }
};

struct __nv_bfloat16 {
  uint16_t bits;

  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    bits = value == value ? static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16) : 0x7fc0;
  }
  explicit operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

namespace addertrain {

inline float bits_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float to_float(int32_t v) { return static_cast<float>(v); }
inline float to_float(float v) { return v; }
inline float to_float(__half v) { return static_cast<float>(v); }
inline float to_float(__nv_bfloat16 v) { return static_cast<float>(v); }
template <class T>
T from_float(float v);
template <>
inline float from_float<float>(float v) {
  return v;
}
template <>
inline int32_t from_float<int32_t>(float v) {
  return static_cast<int32_t>(v);
}
template <>
inline __half from_float<__half>(float v) {
  return __half(v);
}
template <>
inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __nv_bfloat16(v);
}

}  // namespace addertrain
