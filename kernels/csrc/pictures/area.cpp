// Shrinks a box of an image by area interpolation, with OpenCV's bits: an output pixel is the mean of what its cell
// covers. Sums are float32, along a row first and then down the rows, each product rounded before it is added.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace addertrain::pictures {
namespace {

constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer, ties to even, in the lowest bits
constexpr double kNegligible = 1e-3;  // of a source pixel

// A source pixel that an output pixel covers, and with which share of the cell.
struct Covered {
  int32_t source;
  float share;
};

// The taps of each output pixel along one axis: those of pixel k are taps[starts[k]] to taps[starts[k + 1] - 1].
struct Cells {
  std::vector<Covered> taps;
  std::vector<int32_t> starts;
  double scale = 0;

  void plan(int64_t size_in, int64_t size_out) {
    scale = 1.0 / (static_cast<double>(size_out) / static_cast<double>(size_in));
    taps.clear();
    starts.clear();
    for (int64_t k = 0; k < size_out; ++k) {
      starts.push_back(static_cast<int32_t>(taps.size()));
      cover(k * scale, size_in);
    }
    starts.push_back(static_cast<int32_t>(taps.size()));
  }

  // The cell [begin, begin + scale): a share of its first pixel, all of those between, a share of its last.
  void cover(double begin, int64_t size_in) {
    const double end = begin + scale, cell = std::fmin(scale, size_in - begin);
    int64_t last = static_cast<int64_t>(std::floor(end)), first = static_cast<int64_t>(std::ceil(begin));
    if (last > size_in - 1) last = size_in - 1;
    if (first > last) first = last;
    if (first - begin > kNegligible) add(first - 1, (first - begin) / cell);
    for (int64_t whole = first; whole < last; ++whole) add(whole, 1.0 / cell);
    if (end - last > kNegligible) add(last, std::fmin(std::fmin(end - last, 1.0), cell) / cell);
  }

  void add(int64_t source, double share) {
    taps.push_back({static_cast<int32_t>(source), static_cast<float>(share)});
  }

  bool is_whole() const { return std::abs(scale - std::nearbyint(scale)) < 0x1p-52; }
};

struct ShrinkScratch {
  Cells across, down;
  std::vector<float> first, second, sums;  // four channels a pixel
};

// Pixels have four channels here, of which the last has no meaning. Each function exists for any processor and for AVX2;
// both do the same operations in the same order.
void shrink_rows_portably(const uint8_t* row, const uint8_t* next, const Cells& axis, int64_t width, float* first,
                          float* second) {
  for (int64_t k = 0; k < 4 * width; ++k) first[k] = second[k] = 0;
  for (int64_t k = 0; k < width; ++k) {
    for (int32_t t = axis.starts[k]; t < axis.starts[k + 1]; ++t) {
      const Covered tap = axis.taps[t];
      for (int64_t channel = 0; channel < 3; ++channel) {
        first[4 * k + channel] += row[3 * tap.source + channel] * tap.share;
        second[4 * k + channel] += next[3 * tap.source + channel] * tap.share;
      }
    }
  }
}

void store_row_portably(const float* sums, int64_t width, uint8_t* image) {
  for (int64_t k = 0; k < width; ++k) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      const float rounded = sums[4 * k + channel] + kRound;
      uint32_t bits;
      std::memcpy(&bits, &rounded, 4);
      image[3 * k + channel] = static_cast<uint8_t>(bits);  // shares add up to one: it is 0 to 255
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void shrink_rows_avx2(const uint8_t* row, const uint8_t* next, const Cells& axis,
                                                      int64_t width, float* first, float* second) {
  const Covered* taps = axis.taps.data();
  const int32_t* starts = axis.starts.data();
  for (int64_t k = 0; k < width; ++k) {
    __m256 sum = _mm256_setzero_ps();
    for (int32_t t = starts[k]; t < starts[k + 1]; ++t) {
      int32_t upper, lower;
      std::memcpy(&upper, row + 3 * taps[t].source, 4);
      std::memcpy(&lower, next + 3 * taps[t].source, 4);
      const __m128i both = _mm_insert_epi32(_mm_cvtsi32_si128(upper), lower, 1);
      const __m256 pixels = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(both));
      sum = _mm256_add_ps(sum, _mm256_mul_ps(pixels, _mm256_broadcast_ss(&taps[t].share)));
    }
    _mm_storeu_ps(first + 4 * k, _mm256_castps256_ps128(sum));
    _mm_storeu_ps(second + 4 * k, _mm256_extractf128_ps(sum, 1));
  }
}

// Stores four bytes a pixel, of which the next pixel overwrites the fourth; the portable function stores the last pixel.
__attribute__((target("avx2"))) void store_row_avx2(const float* sums, int64_t width, uint8_t* image) {
  const __m128i lowest = _mm_set1_epi32(0x0C080400);
  for (int64_t k = 0; k + 1 < width; ++k) {
    const __m128 rounded = _mm_add_ps(_mm_loadu_ps(sums + 4 * k), _mm_set1_ps(kRound));
    const int32_t pixel = _mm_cvtsi128_si32(_mm_shuffle_epi8(_mm_castps_si128(rounded), lowest));
    std::memcpy(image + 3 * k, &pixel, 4);
  }
  store_row_portably(sums + 4 * (width - 1), 1, image + 3 * (width - 1));
}
#endif

struct Rows {
  decltype(&shrink_rows_portably) shrink;
  decltype(&store_row_portably) store;
};

Rows rows_of_this_processor() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return {shrink_rows_avx2, store_row_avx2};
#endif
  return {shrink_rows_portably, store_row_portably};
}

// sums = share * row, or sums += share * row.
void add_row(const float* row, float share, bool is_first, int64_t count, float* sums) {
  if (is_first)
    for (int64_t k = 0; k < count; ++k) sums[k] = share * row[k];
  else
    for (int64_t k = 0; k < count; ++k) sums[k] += share * row[k];
}

void shrink(const uint8_t* box, int64_t stride, int64_t height, int64_t out_height, int64_t out_width, uint8_t* image,
            ShrinkScratch& space) {
  static const Rows rows = rows_of_this_processor();
  for (std::vector<float>* row : {&space.first, &space.second, &space.sums}) row->resize(4 * out_width);
  int64_t held = -2;  // the first of the two rows that are held
  for (int64_t y = 0; y < out_height; ++y) {
    const int32_t start = space.down.starts[y], end = space.down.starts[y + 1];
    for (int32_t t = start; t < end; ++t) {
      const Covered tap = space.down.taps[t];
      if (tap.source != held && tap.source != held + 1) {
        held = tap.source;
        const uint8_t* row = box + held * stride;
        rows.shrink(row, held + 1 < height ? row + stride : row, space.across, out_width, space.first.data(),
                    space.second.data());
      }
      const std::vector<float>& row = tap.source == held ? space.first : space.second;
      add_row(row.data(), tap.share, t == start, 4 * out_width, space.sums.data());
    }
    rows.store(space.sums.data(), out_width, image + 3 * y * out_width);
  }
}

}  // namespace
}  // namespace addertrain::pictures

// Fills `image` (out_height, out_width, 3) from `box` (row, column, height, width) of `pixels`, whose rows have `width`
// pixels of three bytes; one byte behind the last of them is read. Returns whether it did: OpenCV averages in integers
// where both sides shrink by whole numbers, and enlarges otherwise.
extern "C" __attribute__((visibility("default"))) int32_t addertrain_shrink_box(
    const uint8_t* pixels, int64_t width, int64_t row, int64_t column, int64_t box_height, int64_t box_width,
    uint8_t* image, int64_t out_height, int64_t out_width) {
  using namespace addertrain::pictures;
  if (box_height < out_height || box_width < out_width || out_height < 1 || out_width < 1) return 0;
  thread_local ShrinkScratch space;
  space.across.plan(box_width, out_width);
  space.down.plan(box_height, out_height);
  if (space.across.is_whole() && space.down.is_whole()) return 0;
  shrink(pixels + 3 * (row * width + column), 3 * width, box_height, out_height, out_width, image, space);
  return 1;
}
