// Puts restart markers into a JPEG without compressing it again: its coefficients are read, and written once more as
// one sequential scan with Huffman tables of its own. Progressive and arithmetic JPEGs become sequential by that.
#include <cstdint>
#include <cstdio>

#include <jpeglib.h>

#include "csrc/pictures/errors.h"

namespace addertrain::pictures {
namespace {

// Takes what the encoder writes into the caller's memory; a JPEG that does not fit is an error.
struct Output : jpeg_destination_mgr {
  int64_t capacity;

  Output(uint8_t* bytes, int64_t capacity) : capacity(capacity) {
    next_output_byte = bytes;
    free_in_buffer = capacity;
    init_destination = [](j_compress_ptr) {};
    term_destination = [](j_compress_ptr) {};
    empty_output_buffer = [](j_compress_ptr state) -> boolean {
      state->err->error_exit(reinterpret_cast<j_common_ptr>(state));
      return FALSE;
    };
  }

  int64_t length() const { return capacity - static_cast<int64_t>(free_in_buffer); }
};

// Reads coefficients and writes them. libjpeg keeps all of them between the two: two bytes for every sample.
class Rewriter {
 public:
  Rewriter() {
    source_.err = target_.err = &errors_;
    if (setjmp(errors_.on_error)) return;
    jpeg_create_decompress(&source_);
    jpeg_create_compress(&target_);
    is_made_ = true;
  }
  ~Rewriter() {
    jpeg_destroy_decompress(&source_);
    jpeg_destroy_compress(&target_);
  }
  Rewriter(const Rewriter&) = delete;

  // The length of the new JPEG in `output`; 0 where libjpeg warns or fails.
  int64_t rewrite(const uint8_t* encoded, int64_t size, int64_t interval, Output& output) {
    if (!is_made_ || setjmp(errors_.on_error)) return 0;
    jpeg_mem_src(&source_, encoded, size);
    if (jpeg_read_header(&source_, TRUE) != JPEG_HEADER_OK) return 0;
    jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&source_);  // to the end of the file
    if (errors_.num_warnings) return 0;  // read here, because the encoder starts to count again
    // This copies what decoders tell the colours by, too: the JFIF or Adobe marker, and the numbers of the components.
    // Comments, EXIF and colour profiles are not copied.
    jpeg_copy_critical_parameters(&source_, &target_);
    target_.optimize_coding = TRUE;
    target_.restart_interval = interval;
    target_.dest = &output;
    jpeg_write_coefficients(&target_, coefficients);
    jpeg_finish_compress(&target_);
    jpeg_finish_decompress(&source_);
    return errors_.num_warnings == 0 ? output.length() : 0;
  }

 private:
  Errors errors_;
  jpeg_decompress_struct source_{};
  jpeg_compress_struct target_{};
  bool is_made_ = false;
};

}  // namespace
}  // namespace addertrain::pictures

// Writes the JPEG `encoded` with a restart marker after every `interval` macroblocks into `marked`. Returns its
// length; 0 where it does not fit into `capacity` bytes, is damaged, or is of a kind that libjpeg cannot rewrite.
extern "C" __attribute__((visibility("default"))) int64_t addertrain_restart_markers(
    const uint8_t* encoded, int64_t size, int64_t interval, uint8_t* marked, int64_t capacity) {
  using namespace addertrain::pictures;
  Output output(marked, capacity);
  Rewriter rewriter;
  return rewriter.rewrite(encoded, size, interval, output);
}
