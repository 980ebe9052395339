// Cuts the JPEG of a rectangle of macroblocks out of a JPEG with restart markers. The data are copied, not decoded.
#pragma once

#include <cstdint>
#include <cstring>

namespace addertrain::pictures {

// A box that is wanted, or the rectangle that a decoder has filled, in pixels.
struct Rectangle {
  int64_t row, column, height, width;
};

// ITU T.81, table B.1.
enum Marker : uint8_t {
  kBaseline = 0xC0, kExtended = 0xC1, kHuffman = 0xC4, kFirstRestart = 0xD0, kLastRestart = 0xD7, kStart = 0xD8,
  kEnd = 0xD9, kScan = 0xDA, kQuantisation = 0xDB, kInterval = 0xDD, kFirstApp = 0xE0, kLastApp = 0xEF,
  kComment = 0xFE
};

// The head of a JPEG of one sequential scan, as far as cutting needs it.
struct Head {
  int64_t frame = 0;  // where the segment of the frame begins, at its 0xFF
  int64_t data = 0;   // where the entropy-coded data begin
  int64_t height = 0, width = 0;
  int64_t unit_height = 0, unit_width = 0;  // pixels of a macroblock
  int64_t interval = 0;                     // macroblocks between two restart markers; 0: none

  int64_t rows() const { return (height + unit_height - 1) / unit_height; }
  int64_t columns() const { return (width + unit_width - 1) / unit_width; }
};

inline int64_t big_endian_16(const uint8_t* bytes) { return bytes[0] << 8 | bytes[1]; }

// Reads the frame's size and sampling; false where cutting does not support them.
inline bool read_frame(const uint8_t* segment, int64_t length, Head& head) {
  if (length < 11 || segment[4] != 8) return false;
  int64_t num_components = segment[9], most_h = 1, most_v = 1;
  if ((num_components != 1 && num_components != 3) || length != 8 + 3 * num_components) return false;
  for (int64_t k = 0; k < num_components; ++k) {
    int64_t h = segment[11 + 3 * k] >> 4, v = segment[11 + 3 * k] & 15;
    if (h < 1 || h > 4 || v < 1 || v > 4) return false;
    if (h > most_h) most_h = h;
    if (v > most_v) most_v = v;
  }
  head.height = big_endian_16(segment + 5);
  head.width = big_endian_16(segment + 7);
  // A scan of one component is not interleaved: its macroblock is one block, whatever its sampling says.
  head.unit_height = num_components == 1 ? 8 : 8 * most_v;
  head.unit_width = num_components == 1 ? 8 : 8 * most_h;
  return head.height > 0 && head.width > 0;
}

// Reads the segments in front of the data; false where anything is unusual; then all of the image is decoded.
inline bool read_head(const uint8_t* encoded, int64_t size, Head& head) {
  if (size < 4 || encoded[0] != 0xFF || encoded[1] != kStart) return false;
  int64_t place = 2, num_components = 0;
  while (place + 4 <= size && encoded[place] == 0xFF) {
    const uint8_t marker = encoded[place + 1];
    const int64_t length = big_endian_16(encoded + place + 2);
    if (length < 2 || place + 2 + length > size) return false;
    const uint8_t* segment = encoded + place;
    if (marker == kBaseline || marker == kExtended) {
      if (num_components || !read_frame(segment, length, head)) return false;
      num_components = segment[9];
      head.frame = place;
    } else if (marker == kInterval) {
      if (length != 4) return false;
      head.interval = big_endian_16(segment + 4);
    } else if (marker == kScan) {
      head.data = place + 2 + length;
      return num_components && length >= 3 && segment[4] == num_components;
    } else if (marker != kHuffman && marker != kQuantisation && marker != kComment &&
               !(marker >= kFirstApp && marker <= kLastApp)) {
      return false;
    }
    place += 2 + length;
  }
  return false;
}

// Finds the intervals of the entropy-coded data in turn: each ends at the next marker.
class Intervals {
 public:
  Intervals(const uint8_t* encoded, int64_t size, int64_t data)
      : encoded_(encoded), end_of_file_(size), start_(data) {}

  // Where the current interval lies; false where no marker ends it, or one that must not be there.
  bool find(int64_t& start, int64_t& end) {
    int64_t place = start_;
    while (place + 1 < end_of_file_) {
      const void* found = std::memchr(encoded_ + place, 0xFF, end_of_file_ - 1 - place);
      if (!found) return false;
      place = static_cast<const uint8_t*>(found) - encoded_;
      const uint8_t marker = encoded_[place + 1];
      if (marker == 0) {
        place += 2;
        continue;
      }
      is_last_ = marker == kEnd;
      if (!is_last_ && marker != kFirstRestart + (number_ & 7)) return false;
      start = start_;
      end = place;
      start_ = place + 2;
      ++number_;
      return true;
    }
    return false;
  }

  bool is_last() const { return is_last_; }

 private:
  const uint8_t* encoded_;
  int64_t end_of_file_, start_, number_ = 0;
  bool is_last_ = false;
};

// Which intervals a box needs: rows and columns of them, both ends included.
struct Range {
  int64_t first_row, last_row, first_column, last_column, columns, width;  // width: of an interval, in pixels

  // The macroblocks of the box and of the neighbours that chroma is interpolated from: at most one sample away.
  Range(const Head& head, const Rectangle& box) {
    columns = head.columns() / head.interval;
    width = head.interval * head.unit_width;
    const int64_t margin_y = head.unit_height / 8, margin_x = head.unit_width / 8;
    first_row = clamp((box.row - margin_y) / head.unit_height, head.rows());
    last_row = clamp((box.row + box.height - 1 + margin_y) / head.unit_height, head.rows());
    first_column = clamp((box.column - margin_x) / width, columns);
    last_column = clamp((box.column + box.width - 1 + margin_x) / width, columns);
    // libjpeg interpolates differently if an image is a few pixels wide, as the last column of intervals can be.
    if (first_column == last_column && first_column > 0) --first_column;
  }

  static int64_t clamp(int64_t value, int64_t count) { return value < 0 ? 0 : value >= count ? count - 1 : value; }
};

// Writes the JPEG of the rectangle that `box` needs; `cut` has room for `size` + 2 bytes. Returns its length, or
// 0 where the restart markers do not suit. No byte is read beyond `size`, whatever the bytes are.
inline int64_t cut_out(const uint8_t* encoded, int64_t size, const Head& head, const Rectangle& box, uint8_t* cut,
                       Rectangle& shown) {
  if (head.interval == 0 || head.columns() % head.interval) return 0;
  const Range range(head, box);
  if (range.first_row == 0 && range.last_row == head.rows() - 1 && range.first_column == 0 &&
      range.last_column == range.columns - 1)
    return 0;  // all of it: there is nothing to cut
  shown.row = range.first_row * head.unit_height;
  shown.column = range.first_column * range.width;
  const bool is_bottom = range.last_row == head.rows() - 1, is_right = range.last_column == range.columns - 1;
  shown.height = (is_bottom ? head.height : (range.last_row + 1) * head.unit_height) - shown.row;
  shown.width = (is_right ? head.width : (range.last_column + 1) * range.width) - shown.column;

  std::memcpy(cut, encoded, head.data);
  cut[head.frame + 5] = shown.height >> 8;
  cut[head.frame + 6] = shown.height & 255;
  cut[head.frame + 7] = shown.width >> 8;
  cut[head.frame + 8] = shown.width & 255;
  int64_t length = head.data, num_copied = 0, start = 0, end = 0;
  Intervals intervals(encoded, size, head.data);
  for (int64_t row = 0; row <= range.last_row; ++row) {
    for (int64_t column = 0; column < range.columns; ++column) {
      const bool is_final = row == head.rows() - 1 && column == range.columns - 1;
      if (!intervals.find(start, end) || intervals.is_last() != is_final) return 0;
      if (row < range.first_row || column < range.first_column || column > range.last_column) continue;
      if (num_copied) {
        cut[length++] = 0xFF;
        cut[length++] = kFirstRestart + ((num_copied - 1) & 7);
      }
      std::memcpy(cut + length, encoded + start, end - start);
      length += end - start;
      ++num_copied;
      if (row == range.last_row && column == range.last_column) {
        cut[length++] = 0xFF;
        cut[length++] = kEnd;
        return length;
      }
    }
  }
  return 0;
}

}  // namespace addertrain::pictures
