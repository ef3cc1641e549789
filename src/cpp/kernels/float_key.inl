// Floats as unsigned integers in the same order, so that comparing them does not depend on the flush-to-zero mode and
// -0.0 is 0.0 (design.md, section 4, 1). Included inside an anonymous namespace by whoever needs it.
//
// Key of a float: its bits with the sign bit set if the sign is clear, else all bits flipped. -0.0 would be just below
// the key of 0.0; it gets that of 0.0. Keys of NaN have no meaning.

template <class Real>
struct KeyOf;
template <>
struct KeyOf<float> {
  typedef uint32_t Key;
  typedef int32_t Bits;  // signed: baseline vector units compare no unsigned integers
  static constexpr int32_t kMagnitude = 0x7fffffff;
  static constexpr int32_t kInfinity = 0x7f800000;
  static constexpr uint32_t kZero = 0x80000000u;
};
template <>
struct KeyOf<double> {
  typedef uint64_t Key;
  typedef int64_t Bits;
  static constexpr int64_t kMagnitude = 0x7fffffffffffffff;
  static constexpr int64_t kInfinity = 0x7ff0000000000000;
  static constexpr uint64_t kZero = 0x8000000000000000u;
};

template <class Real>
inline typename KeyOf<Real>::Key key_of(Real value) noexcept {
  typedef typename KeyOf<Real>::Key Key;
  typename KeyOf<Real>::Bits bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const Key key = static_cast<Key>(bits) ^ (static_cast<Key>(bits >> (8 * sizeof bits - 1)) | KeyOf<Real>::kZero);
  return key + static_cast<Key>(key == KeyOf<Real>::kZero - 1);
}

template <class Real>
inline Real real_of_key(typename KeyOf<Real>::Key key) noexcept {
  const typename KeyOf<Real>::Key bits = (key & KeyOf<Real>::kZero) != 0 ? key ^ KeyOf<Real>::kZero : ~key;
  Real value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// The key of the next representable value above.
template <class Real>
inline typename KeyOf<Real>::Key next_key(typename KeyOf<Real>::Key key) noexcept {
  return key == KeyOf<Real>::kZero - 2 ? KeyOf<Real>::kZero : key + 1;
}
