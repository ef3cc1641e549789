// Floats as signed integers in the same order, so that comparing them does not depend on the flush-to-zero mode and -0.0 is
// 0.0 (design.md, section 4, 1). Included inside an anonymous namespace by whoever needs it.
//
// Key of a float: its bits if the sign is clear, else all other bits flipped. -0.0 would be -1, just below 0.0; it is made 0.

template <class Real>
struct KeyOf;
template <>
struct KeyOf<float> {
  typedef int32_t Key;
  static constexpr int32_t kMagnitude = 0x7fffffff;
  static constexpr int32_t kInfinity = 0x7f800000;
};
template <>
struct KeyOf<double> {
  typedef int64_t Key;
  static constexpr int64_t kMagnitude = 0x7fffffffffffffff;
  static constexpr int64_t kInfinity = 0x7ff0000000000000;
};

template <class Real>
inline typename KeyOf<Real>::Key key_of(Real value) {
  typename KeyOf<Real>::Key bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const typename KeyOf<Real>::Key key = bits ^ ((bits >> (8 * sizeof bits - 1)) & KeyOf<Real>::kMagnitude);
  return key + (key == -1);
}

template <class Real>
inline Real real_of_key(typename KeyOf<Real>::Key key) {
  const typename KeyOf<Real>::Key bits = key ^ ((key >> (8 * sizeof key - 1)) & KeyOf<Real>::kMagnitude);
  Real value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// The key of the next representable value above.
template <class Key>
inline Key next_key(Key key) {
  return key == -2 ? 0 : key + 1;
}
