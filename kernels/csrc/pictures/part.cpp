// Decodes the part of a JPEG that a crop shows, with the pixels that decoding all of it would give, through the
// system's libjpeg-turbo: the source of the TurboJPEG that FFCV is linked with.
#include <cstdint>
#include <cstdio>

#include <jpeglib.h>

#include "csrc/pictures/errors.h"
#include "csrc/pictures/restart.h"

namespace addertrain::pictures {
namespace {

// libjpeg's decoder of one thread; it is kept, because making it costs as much as a small image.
class Decoder {
 public:
  Decoder() {
    state_.err = &errors_;
    if (setjmp(errors_.on_error)) return;
    jpeg_create_decompress(&state_);
    is_made_ = true;
  }
  ~Decoder() {
    if (is_made_) jpeg_destroy_decompress(&state_);
  }
  Decoder(const Decoder&) = delete;

  // Fills `pixels` with the rectangle `shown`, which holds `box`. Returns false if libjpeg warns or fails, or if the image
  // is not of a kind of which lines can be skipped. `height` and `width` are the sizes that it must have.
  bool decode(const uint8_t* encoded, int64_t size, int64_t height, int64_t width, const Rectangle& box,
              uint8_t* pixels, int64_t capacity, Rectangle& shown) {
    if (!is_made_) return false;
    if (setjmp(errors_.on_error)) {
      jpeg_abort_decompress(&state_);
      return false;
    }
    errors_.num_warnings = 0;
    jpeg_mem_src(&state_, encoded, size);
    const bool is_done = jpeg_read_header(&state_, TRUE) == JPEG_HEADER_OK && is_plain(height, width) &&
                         read_lines(box, pixels, capacity, shown) && errors_.num_warnings == 0;
    jpeg_abort_decompress(&state_);
    return is_done;
  }

 private:
  bool is_plain(int64_t height, int64_t width) {
    const bool is_colour = state_.jpeg_color_space == JCS_YCbCr || state_.jpeg_color_space == JCS_RGB;
    return state_.image_height == height && state_.image_width == width && !state_.progressive_mode &&
           !state_.arith_code && !jpeg_has_multiple_scans(&state_) &&
           (is_colour || state_.jpeg_color_space == JCS_GRAYSCALE);
  }

  bool read_lines(const Rectangle& box, uint8_t* pixels, int64_t capacity, Rectangle& shown) {
    state_.out_color_space = JCS_EXT_RGB;
    state_.dct_method = JDCT_FASTEST;  // as FFCV asks for
    jpeg_start_decompress(&state_);
    // Chroma is interpolated from the next sample, which the margin keeps inside. libjpeg moves the left side to the
    // beginning of a macroblock.
    const int64_t left = box.column > kMargin ? box.column - kMargin : 0;
    int64_t right = box.column + box.width + kMargin;
    if (right > state_.output_width) right = state_.output_width;
    JDIMENSION column = left, width = right - left;
    if (width < state_.output_width) jpeg_crop_scanline(&state_, &column, &width);
    shown = {box.row, column, box.height, width};
    if (shown.column > box.column || shown.column + shown.width < box.column + box.width) return false;
    const int64_t line = 3 * shown.width;
    if (shown.height * line > capacity) return false;
    if (shown.row > 0 && jpeg_skip_scanlines(&state_, shown.row) != shown.row) return false;
    for (int64_t done = 0; done < shown.height;) {
      JSAMPROW lines[kLines];
      const int64_t left_over = shown.height - done, count = left_over < kLines ? left_over : kLines;
      for (int64_t k = 0; k < count; ++k) lines[k] = pixels + (done + k) * line;
      const int64_t got = jpeg_read_scanlines(&state_, lines, count);
      if (got == 0) return false;
      done += got;
    }
    return true;
  }

  static constexpr int64_t kMargin = 16, kLines = 16;
  jpeg_decompress_struct state_{};
  Errors errors_;
  bool is_made_ = false;
};

}  // namespace
}  // namespace addertrain::pictures

// Fills `pixels` (`capacity` bytes) with a rectangle of the image that holds `box` (row, column, height, width), and
// writes the rectangle to `shown`. `cut` is scratch of `size` + 2 bytes. Returns whether it did; if not, the caller
// decodes all of the image by other means, which also say what is wrong with it.
extern "C" __attribute__((visibility("default"))) int32_t addertrain_decode_part(
    const uint8_t* encoded, int64_t size, int64_t height, int64_t width, const int64_t* box, uint8_t* cut,
    uint8_t* pixels, int64_t capacity, int64_t* shown) {
  using namespace addertrain::pictures;
  thread_local Decoder decoder;
  Rectangle wanted{box[0], box[1], box[2], box[3]}, part{0, 0, height, width}, inner{};
  Head head;
  int64_t cut_size = 0;
  if (read_head(encoded, size, head) && head.height == height && head.width == width)
    cut_size = cut_out(encoded, size, head, wanted, cut, part);
  bool is_done;
  if (cut_size) {
    const Rectangle all{0, 0, part.height, part.width};
    is_done = decoder.decode(cut, cut_size, part.height, part.width, all, pixels, capacity, inner);
    inner.row = part.row;
    inner.column = part.column;
  } else {
    is_done = decoder.decode(encoded, size, height, width, wanted, pixels, capacity, inner);
  }
  shown[0] = inner.row;
  shown[1] = inner.column;
  shown[2] = inner.height;
  shown[3] = inner.width;
  return is_done;
}
