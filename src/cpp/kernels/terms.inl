// What one neuron contributes to a score, of its value and over an interval of values (design.md, section 3, "One
// arithmetic"). The ends of an interval go through the operations of the exact value, in the same order; each is
// monotone under rounding, so the interval is certain without slack.
//
//   value: w * v     square: w * (v * v)     abs_diff: w * |v - t|     sq_diff: w * ((v - t) * (v - t))     product: w
//   * (t * v)

inline double magnitude(double x) noexcept { return __builtin_fabs(x); }

template <int kKind>
inline double term_core(double value, double target) noexcept {
  if (kKind == kTermValue) return value;
  if (kKind == kTermSquare) return value * value;
  if (kKind == kTermProduct) return target * value;
  const double difference = value - target;
  if (kKind == kTermAbsDiff) return magnitude(difference);
  return difference * difference;
}

template <int kKind>
void term_points(const double* values, size_t n, const Term* term, double* out) noexcept {
  const double target = term->target;
  const double weight = term->weight;
  if (term->weighted) {
    for (size_t i = 0; i < n; ++i) out[i] = weight * term_core<kKind>(values[i], target);
  } else {
    for (size_t i = 0; i < n; ++i) out[i] = term_core<kKind>(values[i], target);
  }
}

template <int kKind>
void term_intervals(const double* lower, const double* upper, size_t n, const Term* term, double* pairs) noexcept {
  constexpr bool kEven = kKind == kTermSquare || kKind == kTermAbsDiff || kKind == kTermSqDiff;
  const double infinity = __builtin_inf();
  const double target = term->target;
  const double origin = kKind == kTermSquare ? 0.0 : target;
  for (size_t i = 0; i < n; ++i) {
    double a = term_core<kKind>(lower[i], target);
    double b = term_core<kKind>(upper[i], target);
    if (kEven) {
      // Falls to 0 where the (rounded) difference may be 0, and rises on both sides of it.
      const bool around = lower[i] - origin <= 0.0 && upper[i] - origin >= 0.0;
      const double least = a < b ? a : b;
      const double greatest = a < b ? b : a;
      const bool defined = a == a && b == b;
      a = around ? 0.0 : defined ? least : a + b;
      b = defined ? greatest : a + b;
    } else if (kKind == kTermProduct && target < 0.0) {
      const double swap = a;
      a = b;
      b = swap;
    }
    if (term->weighted) {
      const double wa = term->weight * a;
      const double wb = term->weight * b;
      a = term->weight < 0.0 ? wb : wa;
      b = term->weight < 0.0 ? wa : wb;
    }
    const bool defined = a == a && b == b;  // else inf * 0 or inf - inf
    pairs[2 * i] = defined ? a : -infinity;
    pairs[2 * i + 1] = defined ? b : infinity;
  }
}

void widen_f64(const void* values, size_t n, double* out) noexcept {
  __builtin_memcpy(out, values, n * sizeof(double));
}

void widen_f32(const void* values, size_t n, double* out) noexcept {
  const uint8_t* bytes = static_cast<const uint8_t*>(values);
  for (size_t i = 0; i < n; ++i) {
    float value;
    __builtin_memcpy(&value, bytes + 4 * i, 4);
    out[i] = static_cast<double>(value);
  }
}

void widen_bf16(const void* values, size_t n, double* out) noexcept {
  const uint8_t* bytes = static_cast<const uint8_t*>(values);
  for (size_t i = 0; i < n; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, bytes + 2 * i, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    out[i] = static_cast<double>(value);
  }
}

// Exponent 0 holds subnormals, mantissa * 2^-24, made by an integer conversion: no subnormal float32 ever appears, so
// flush-to-zero changes nothing. Exponent 31 (infinity, NaN) is never stored, and read as such.
void widen_f16(const void* values, size_t n, double* out) noexcept {
  const uint8_t* bytes = static_cast<const uint8_t*>(values);
  for (size_t i = 0; i < n; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, bytes + 2 * i, 2);
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t mantissa = half & 0x3ffu;
    const uint32_t offset = exponent == 31 ? (112u + 112u) << 23 : 112u << 23;
    const uint32_t bits = ((half & 0x7fffu) << 13) + offset;
    float normal;
    __builtin_memcpy(&normal, &bits, 4);
    const float subnormal = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24f;
    const float absolute = exponent == 0 ? subnormal : normal;
    out[i] = static_cast<double>(half & 0x8000u ? -absolute : absolute);
  }
}
