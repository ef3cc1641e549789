// Thresholds among pixels; see pixel_values.h. A key's value is computed with integers and compared as one, so nothing
// here depends on the flush-to-zero mode. Searching the keys by halves finds a threshold's place whatever the type.
#include "mask/pixel_values.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace nadb::mask {

namespace {

#include "kernels/float_key.inl"

struct Keys {
  std::int64_t least;
  std::int64_t greatest;
};

Keys keys_of(PixelType type) {
  switch (type) {
    case kPixelU8:
      return {-128, 127};
    case kPixelU16:
      return {-32768, 32767};
    case kPixelF16:
      return {-0x7c01, 0x7c00};
    default:
      return {-0x7f800001LL, 0x7f800000LL};
  }
}

// Of a sign, exponent and mantissa as in IEEE 754.
double value_of_fields(bool negative, int exponent, int greatest_exponent, std::int32_t mantissa, int mantissa_bits) {
  const int bias = greatest_exponent / 2;
  double magnitude;
  if (exponent == greatest_exponent) {
    magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<double>(mantissa), 1 - bias - mantissa_bits);
  } else {
    magnitude = std::ldexp(static_cast<double>(mantissa | (1 << mantissa_bits)), exponent - bias - mantissa_bits);
  }
  return negative ? -magnitude : magnitude;
}

double value_of_f16(std::uint32_t bits) {
  return value_of_fields((bits & 0x8000u) != 0, static_cast<int>((bits >> 10) & 0x1fu), 0x1f,
                         static_cast<std::int32_t>(bits & 0x3ffu), 10);
}

double value_of_f32(std::uint32_t bits) {
  return value_of_fields((bits & 0x80000000u) != 0, static_cast<int>((bits >> 23) & 0xffu), 0xff,
                         static_cast<std::int32_t>(bits & 0x7fffffu), 23);
}

template <class Holds>
std::int64_t first_key(PixelType type, Holds&& holds) {
  const Keys keys = keys_of(type);
  std::int64_t low = keys.least;
  std::int64_t high = keys.greatest + 1;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (holds(key_of(value_of_key(type, static_cast<std::int32_t>(middle))))) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  // -1 would be the key of -0.0, which has that of 0.0.
  return is_float(type) && low == -1 ? 0 : low;
}

}  // namespace

double value_of_key(PixelType type, std::int32_t key) {
  switch (type) {
    case kPixelU8:
      return static_cast<double>(key + 128);
    case kPixelU16:
      return static_cast<double>(key + 32768);
    case kPixelF16:
      return value_of_f16(static_cast<std::uint32_t>(key < 0 ? key ^ 0x7fff : key) & 0xffffu);
    default:
      return value_of_f32(static_cast<std::uint32_t>(key < 0 ? key ^ 0x7fffffff : key));
  }
}

double value_of_pixel(PixelType type, const void* pixel) {
  if (type == kPixelU8) return static_cast<double>(*static_cast<const std::uint8_t*>(pixel));
  if (type == kPixelF32) {
    std::uint32_t bits;
    std::memcpy(&bits, pixel, sizeof bits);
    return value_of_f32(bits);
  }
  std::uint16_t bits;
  std::memcpy(&bits, pixel, sizeof bits);
  return type == kPixelU16 ? static_cast<double>(bits) : value_of_f16(bits);
}

std::int64_t first_key_from(PixelType type, double bound) {
  const std::uint64_t key = key_of(bound);
  return first_key(type, [key](std::uint64_t value) { return value >= key; });
}

std::int64_t first_key_above(PixelType type, double bound) {
  const std::uint64_t key = key_of(bound);
  return first_key(type, [key](std::uint64_t value) { return value > key; });
}

std::optional<std::int32_t> key_of_value(PixelType type, double value) {
  if (std::isnan(value)) {
    if (!is_float(type)) return std::nullopt;
    return type == kPixelF16 ? -0x8000 : std::numeric_limits<std::int32_t>::min();
  }
  const std::int64_t key = first_key_from(type, value);
  if (key > keys_of(type).greatest) return std::nullopt;
  if (key_of(value_of_key(type, static_cast<std::int32_t>(key))) != key_of(value)) return std::nullopt;
  return static_cast<std::int32_t>(key);
}

KeyRange32 keys_between(PixelType type, std::optional<double> low, std::optional<double> high) {
  const Keys keys = keys_of(type);
  return {low ? first_key_from(type, *low) : keys.least, high ? first_key_from(type, *high) - 1 : keys.greatest};
}

}  // namespace nadb::mask
