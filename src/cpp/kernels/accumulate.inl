// Sums, minima and maxima over a group of neurons, one lane per input, left to right, in float64 (design.md, section 3,
// "One arithmetic"): the lower and the upper end of an input are one pair of doubles and travel together.

// One exact score. A term that is not a number (0 * inf) makes it none, wherever in the group it stands.
template <int kKind>
inline double combine_one(double acc, double term) noexcept {
  if (kKind == kCombineSum) return acc + term;
  const bool better = kKind == kCombineMin ? term < acc : term > acc;
  return better || term != term ? term : acc;
}

typedef double Pair __attribute__((vector_size(16)));

// The ends of a bound: no term is NaN (terms.inl).
template <int kKind>
inline Pair combine_pair(Pair acc, Pair term) noexcept {
  if (kKind == kCombineSum) return acc + term;
  if (kKind == kCombineMin) return term < acc ? term : acc;
  return term > acc ? term : acc;
}

inline Pair load_pair(const double* from) noexcept {
  Pair pair;
  __builtin_memcpy(&pair, __builtin_assume_aligned(from, sizeof pair), sizeof pair);
  return pair;
}

// The accumulators of a few inputs stay in registers while all neurons pass: what a look-up costs is its two loads.
template <int kKind>
void look_up(const CodedGroup* group, size_t n, bool first, double* acc) noexcept {
  constexpr size_t kInputs = 8;
  const size_t table_step = 2 * group->table_stride;
  for (size_t i = 0; i < n; i += kInputs, acc += 2 * kInputs) {
    const uint16_t* codes = group->codes + i;
    const double* table = group->tables;
    size_t left = group->n_neurons;
    Pair sums[kInputs];
    if (first) {
      for (size_t l = 0; l < kInputs; ++l) sums[l] = load_pair(table + 2 * static_cast<size_t>(codes[l]));
      codes += group->code_stride;
      table += table_step;
      --left;
    } else {
      for (size_t l = 0; l < kInputs; ++l) sums[l] = load_pair(acc + 2 * l);
    }
    for (; left != 0; --left, codes += group->code_stride, table += table_step) {
      uint64_t words[kInputs / 4];  // four codes each
      __builtin_memcpy(words, codes, sizeof words);
      for (size_t l = 0; l < kInputs; ++l) {
        const size_t code = static_cast<uint16_t>(words[l / 4] >> (16 * (l % 4)));
        sums[l] = combine_pair<kKind>(sums[l], load_pair(table + 2 * code));
      }
    }
    for (size_t l = 0; l < kInputs; ++l) __builtin_memcpy(acc + 2 * l, &sums[l], sizeof(Pair));
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
