// What the pixels of a mask are, and where a threshold stands among them: user's numbers become ranges of the integer
// keys that the kernels compare (kernels/pixels.inl). Implements design.md, section 5, thresholds and `nodata`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/kernel_table.h"

namespace nadb::mask {

// Most pixels of one mask: sums of counts then fit in 32 bits with room to round up.
constexpr std::int64_t kMostPixels = std::int64_t{1} << 30;

inline std::size_t pixel_bytes(PixelType type) noexcept { return type == kPixelU8 ? 1 : type == kPixelF32 ? 4 : 2; }

inline bool is_float(PixelType type) noexcept { return type == kPixelF16 || type == kPixelF32; }

// The exact value of a key, which must not be a NaN's.
double value_of_key(PixelType type, std::int32_t key);

// The value of the pixel at `pixels`; may be NaN.
double value_of_pixel(PixelType type, const void* pixel);

// The least key whose value is >= bound, or > bound; one more than the greatest key (infinity's, for floats) if there
// is none. `bound` is not NaN.
std::int64_t first_key_from(PixelType type, double bound);
std::int64_t first_key_above(PixelType type, double bound);

// The key of exactly this value, as one_nan_key of pixels.inl; nothing if no pixel of the type has it.
std::optional<std::int32_t> key_of_value(PixelType type, double value);

// Keys from first to last, both included; empty if first > last.
struct KeyRange32 {
  std::int64_t first;
  std::int64_t last;
  bool empty() const noexcept { return first > last; }
};

// Pixels with low <= value < high; an open end takes in everything on its side, but never a NaN.
KeyRange32 keys_between(PixelType type, std::optional<double> low, std::optional<double> high);

}  // namespace nadb::mask
