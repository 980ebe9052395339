// libjpeg's errors as a jump back to the call that they end, and its warnings as a number.
#pragma once

#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>

namespace addertrain::pictures {

// For `err` of a decoder or encoder. A caller does `if (setjmp(errors.on_error)) return ...;` before it calls libjpeg,
// and holds nothing then that a destructor would have to free: the jump runs none. Warnings are in `num_warnings`.
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
