// Sums, minima and maxima over a group of neurons, one lane per input, left to right, in float64 (design.md, section 3,
// "One arithmetic"): the lower and the upper end of an input are one pair of doubles and travel together.

template <int kKind>
inline double combine_one(double acc, double term) noexcept {
  if (kKind == kCombineSum) return acc + term;
  if (kKind == kCombineMin) return term < acc ? term : acc;
  return term > acc ? term : acc;
}

template <class Code>
void look_up(const Code* codes, size_t n, const double* table, double* acc) noexcept {
  for (size_t i = 0; i < n; ++i) {
    __builtin_memcpy(acc + 2 * i, table + 2 * static_cast<size_t>(codes[i]), 2 * sizeof(double));
  }
}

template <int kKind, class Code>
void accumulate(const Code* codes, size_t n, const double* table, double* acc) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const double* entry = table + 2 * static_cast<size_t>(codes[i]);
    acc[2 * i] = combine_one<kKind>(acc[2 * i], entry[0]);
    acc[2 * i + 1] = combine_one<kKind>(acc[2 * i + 1], entry[1]);
  }
}

template <int kKind>
void combine(const double* terms, size_t n, double* acc) noexcept {
  for (size_t i = 0; i < n; ++i) acc[i] = combine_one<kKind>(acc[i], terms[i]);
}

void split_pairs(const double* pairs, size_t n, double* lower, double* upper) noexcept {
  const double infinity = __builtin_inf();
  for (size_t i = 0; i < n; ++i) {
    const double lo = pairs[2 * i];
    const double hi = pairs[2 * i + 1];
    lower[i] = lo == lo ? lo : -infinity;
    upper[i] = hi == hi ? hi : infinity;
  }
}
