// Included before everything else when mlx-c is compiled, and when its bindings are made, on Linux.
#pragma once

#include <stdint.h>

// mlx-c names these types on Arm alone, and mlx-rs needs the functions that mention them everywhere. They carry bits
// only: nobody computes with them here. mlx-rs expects the bindings to call the first one __fp16.
#if !defined(__aarch64__)
#define HAS_FLOAT16
#define HAS_BFLOAT16
#if defined(MLXMAN_BINDGEN)
typedef __fp16 float16_t;
#else
typedef uint16_t float16_t;
#endif
typedef uint16_t bfloat16_t;
#endif

// GCC before 13 has no std::format; mlx-c uses it with `{}`, strings and numbers.
#if defined(__cplusplus) && !defined(MLXMAN_BINDGEN)
#include <version>
#if !defined(__cpp_lib_format)
#include <sstream>
#include <string>
#include <string_view>
namespace std {
inline string format(string_view text) {
  return string(text);
}
template <typename First, typename... Rest>
string format(string_view text, const First& first, const Rest&... rest) {
  const size_t at = text.find("{}");
  if (at == string_view::npos) {
    return string(text);
  }
  ostringstream out;
  out << text.substr(0, at) << first;
  return out.str() + format(text.substr(at + 2), rest...);
}
} // namespace std
#endif
#endif
