// How many units of work cover a count.
#pragma once

#include <cstdint>

namespace addertrain::cuda {

inline int64_t quotient_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

inline int64_t round_up(int64_t value, int64_t unit) { return quotient_up(value, unit) * unit; }

// An axis of a grid whose blocks take `unit` of them each.
inline unsigned num_blocks(int64_t count, int64_t unit) { return static_cast<unsigned>(quotient_up(count, unit)); }

}  // namespace addertrain::cuda
