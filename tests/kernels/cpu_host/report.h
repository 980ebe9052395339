// What was compared and what was wrong, for the summary at the end.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "reference.h"

namespace cpu_host {

class Report {
 public:
  // Everything that follows is about this.
  void begin(const std::string& what) { what_ = what; }

  void expect(bool is_right, const char* format, ...) __attribute__((format(printf, 3, 4))) {
    ++compared_;
    if (is_right) return;
    constexpr int64_t kShown = 20;
    if (++wrong_ > kShown) return;
    va_list arguments;
    va_start(arguments, format);
    std::printf("wrong: %s: ", what_.c_str());
    std::vprintf(format, arguments);
    std::printf("\n");
    va_end(arguments);
  }

  // One finding per tensor: the first value that is off. `is_left_out(i)` values may also be 0.
  template <typename T, typename IsLeftOut>
  void expect_near(const char* name, const std::vector<T>& got, const Answer& answer, const IsLeftOut& is_left_out) {
    size_t bad = got.size();
    for (size_t i = 0; i < got.size() && bad == got.size(); ++i) {
      const bool is_near = std::fabs(static_cast<double>(got[i]) - answer.value[i]) <= tolerance<T>(answer, i);
      if (!is_near && !(got[i] == 0 && is_left_out(i))) bad = i;
    }
    const bool is_right = bad == got.size();
    expect(is_right, "%s[%zu] is %.9g, expected %.9g", name, is_right ? 0 : bad,
           is_right ? 0.0 : static_cast<double>(got[bad]), is_right ? 0.0 : answer.value[bad]);
  }
  template <typename T>
  void expect_near(const char* name, const std::vector<T>& got, const Answer& answer) {
    expect_near(name, got, answer, [](size_t) { return false; });
  }

  int64_t compared() const { return compared_; }
  int64_t wrong() const { return wrong_; }

 private:
  std::string what_;
  int64_t compared_ = 0, wrong_ = 0;
};

}  // namespace cpu_host
