// Looking for values that may not be stored (design.md, section 4, 1: NaN and infinities are an error naming the
// place).

template <class Real>
size_t find_non_finite(const Real* values, size_t n) noexcept {
  typedef typename KeyOf<Real>::Bits Bits;
  constexpr size_t kBlock = 1024;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = n - begin < kBlock ? n : begin + kBlock;
    Bits bad = 0;
    for (size_t i = begin; i < end; ++i) {
      Bits bits;
      __builtin_memcpy(&bits, values + i, sizeof bits);
      bad |= -Bits((bits & KeyOf<Real>::kMagnitude) >= KeyOf<Real>::kInfinity);
    }
    if (bad == 0) continue;
    for (size_t i = begin; i < end; ++i) {
      Bits bits;
      __builtin_memcpy(&bits, values + i, sizeof bits);
      if ((bits & KeyOf<Real>::kMagnitude) >= KeyOf<Real>::kInfinity) return i;
    }
  }
  return n;
}
