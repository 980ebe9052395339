// Turns libjpeg's errors into a jump back to the call that they end, and counts its warnings.
#pragma once

#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>

namespace addertrain::pictures {

// For `err` of a decoder or encoder. A caller does `if (setjmp(errors.on_error)) return ...;` before it calls libjpeg, and
// must not hold anything then that a destructor frees: the jump runs none. `num_warnings` counts the warnings.
struct Errors : jpeg_error_mgr {
  std::jmp_buf on_error;

  Errors() {
    jpeg_std_error(this);
    error_exit = [](j_common_ptr state) { std::longjmp(static_cast<Errors*>(state->err)->on_error, 1); };
    emit_message = [](j_common_ptr state, int level) { state->err->num_warnings += level < 0; };
  }
  Errors(const Errors&) = delete;
};

}  // namespace addertrain::pictures
