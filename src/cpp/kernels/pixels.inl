// Pixels of masks as order-preserving signed integers, and what can be said of each alone: in a range or not
// (design.md, section 5). Comparisons are of integers, so flush-to-zero changes nothing and -0.0 is 0.0.
//
// Key of an unsigned pixel: the pixel with its top bit flipped. Key of a float: its bits, the lower ones flipped if the
// sign is set; -0.0 gets the key of 0.0. A NaN's key lies beyond those of the infinities. Signed keys, because baseline
// vector units compare no unsigned integers.

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
inline T load(const void* from) noexcept {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

struct PixelU8 {
  typedef int8_t Key;
  typedef uint8_t Unsigned;
  static constexpr bool kFloat = false;
  static constexpr Key kNan = 0;  // there is none
  static constexpr int32_t kInfinity = 0;
};
struct PixelU16 {
  typedef int16_t Key;
  typedef uint16_t Unsigned;
  static constexpr bool kFloat = false;
  static constexpr Key kNan = 0;
  static constexpr int32_t kInfinity = 0;
};
struct PixelF16 {
  typedef int16_t Key;
  typedef uint16_t Unsigned;
  static constexpr bool kFloat = true;
  static constexpr Key kNan = -0x7fff - 1;
  static constexpr int32_t kInfinity = 0x7c00;
};
struct PixelF32 {
  typedef int32_t Key;
  typedef uint32_t Unsigned;
  static constexpr bool kFloat = true;
  static constexpr Key kNan = -0x7fffffff - 1;
  static constexpr int32_t kInfinity = 0x7f800000;
};

template <class Key>
constexpr int key_bits() noexcept {
  return static_cast<int>(8 * sizeof(Key));
}

// The least key of the width, also the sign bit.
template <class Key>
constexpr Key least_key() noexcept {
  return static_cast<Key>(int64_t{-1} * (int64_t{1} << (key_bits<Key>() - 1)));
}

template <class P>
inline typename P::Key pixel_key(typename P::Key bits) noexcept {
  typedef typename P::Key Key;
  if (!P::kFloat) return static_cast<Key>(bits ^ least_key<Key>());
  const Key magnitude = static_cast<Key>(~least_key<Key>());
  const Key key = static_cast<Key>(bits ^ static_cast<Key>((bits >> (key_bits<Key>() - 1)) & magnitude));
  return static_cast<Key>(key + static_cast<Key>(key == -1));
}

// The same with one key for every NaN.
template <class P>
inline typename P::Key one_nan_key(typename P::Key bits) noexcept {
  typedef typename P::Key Key;
  const Key key = pixel_key<P>(bits);
  if (!P::kFloat) return key;
  const Key magnitude = static_cast<Key>(bits & static_cast<Key>(~least_key<Key>()));
  return magnitude > static_cast<Key>(P::kInfinity) ? P::kNan : key;
}

// In [first, last], by one signed comparison: key - shift runs from the least key on, modulo the width.
template <class P>
struct Range {
  typedef typename P::Key Key;
  typedef typename P::Unsigned Unsigned;
  Range(int32_t first, int32_t last) noexcept
      : shift(static_cast<Key>(static_cast<Unsigned>(first) - static_cast<Unsigned>(least_key<Key>()))),
        limit(static_cast<Key>(static_cast<Unsigned>(last) - static_cast<Unsigned>(shift))) {}
  bool holds(Key key) const noexcept {
    return static_cast<Key>(static_cast<Unsigned>(key) - static_cast<Unsigned>(shift)) <= limit;
  }
  Key shift;
  Key limit;
};

template <class P>
size_t find_outside(const void* pixels, size_t n, int32_t first, int32_t last, int32_t exempt) noexcept {
  typedef typename P::Key Key;
  constexpr size_t kBlock = 1024;
  const uint8_t* bytes = static_cast<const uint8_t*>(pixels);
  const Range<P> range(first, last);
  const Key allowed = static_cast<Key>(exempt);
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = n - begin < kBlock ? n : begin + kBlock;
    Key bad = 0;
    for (size_t i = begin; i < end; ++i) {
      const Key key = one_nan_key<P>(load<Key>(bytes + i * sizeof(Key)));
      bad = static_cast<Key>(bad | static_cast<Key>(-static_cast<Key>(!range.holds(key) & (key != allowed))));
    }
    if (bad == 0) continue;
    for (size_t i = begin; i < end; ++i) {
      const Key key = one_nan_key<P>(load<Key>(bytes + i * sizeof(Key)));
      if (!range.holds(key) && key != allowed) return i;
    }
  }
  return n;
}

template <class P>
void mark_range(const void* pixels, size_t n, int32_t first, int32_t last, bool exempts, int32_t exempt, uint8_t* all,
                uint8_t* any) noexcept {
  typedef typename P::Key Key;
  const uint8_t* bytes = static_cast<const uint8_t*>(pixels);
  const Range<P> range(first, last);
  const Key outside = static_cast<Key>(exempt);
  const bool keeps = !exempts;
  for (size_t i = 0; i < n; ++i) {
    const Key key = one_nan_key<P>(load<Key>(bytes + i * sizeof(Key)));
    const uint8_t in = static_cast<uint8_t>(range.holds(key) & (keeps | (key != outside)));
    all[i] = static_cast<uint8_t>(all[i] & in);
    any[i] = static_cast<uint8_t>(any[i] | in);
  }
}

template <class P>
void pixel_keys(const void* pixels, size_t n, int32_t exempt, void* keys) noexcept {
  typedef typename P::Key Key;
  const uint8_t* bytes = static_cast<const uint8_t*>(pixels);
  Key* out = static_cast<Key*>(keys);
  const Key dropped = static_cast<Key>(exempt);
  for (size_t i = 0; i < n; ++i) {
    const Key key = one_nan_key<P>(load<Key>(bytes + i * sizeof(Key)));
    out[i] = P::kFloat && key == dropped ? P::kNan : key;
  }
}

// Counts in lanes as wide as the pixels, with -1 added where a pixel lies outside; what is counted is what is not in
// the range. kBits: the range lies above 0.0, where the bits of a float are its key and negative ones stay below.
template <class P, bool kBits>
uint64_t count_outside(const uint8_t* pixels, size_t stride, size_t width, size_t n_rows, Range<P> range) noexcept {
  typedef typename P::Key Key;
  typedef typename P::Unsigned Unsigned;
  typedef typename VectorOf<Key>::Type Vector;
  typedef typename VectorOf<Unsigned>::Type Counts;
  constexpr size_t kLanes = kVectorBytes / sizeof(Key);
  // A row adds at most this to a lane before the lanes are emptied again.
  constexpr size_t kMost = sizeof(Key) == 1 ? 255 : 65535;
  constexpr bool kPlain = kBits || !P::kFloat;
  // The key of an unsigned pixel is the pixel plus the sign bit; it goes into the shift.
  const Unsigned offset = P::kFloat ? Unsigned(0) : static_cast<Unsigned>(least_key<Key>());
  const Key shift = static_cast<Key>(static_cast<Unsigned>(static_cast<Unsigned>(range.shift) - offset));
  const Counts shifts = Counts{} + static_cast<Unsigned>(shift);
  const Vector limits = Vector{} + range.limit;
  const Vector magnitudes = Vector{} + static_cast<Key>(~least_key<Key>());
  const Vector minus_zeros = Vector{} + static_cast<Key>(-1);

  const auto is_outside = [&](const uint8_t* at) noexcept -> Counts {
    Vector bits = load<Vector>(at);
    if (!kPlain) {
      bits = bits ^ ((bits >> (key_bits<Key>() - 1)) & magnitudes);
      bits = bits - (Vector)(bits == minus_zeros);
    }
    return (Counts)((Vector)((Counts)bits - shifts) > limits);
  };

  const size_t tail = width % kLanes;
  Counts tail_lanes{};  // the last vector of a row overlaps the one before: only its last lanes are new
  for (size_t l = 0; l < kLanes; ++l) tail_lanes[l] = static_cast<Unsigned>(l + tail >= kLanes ? ~Unsigned(0) : 0);
  uint64_t total = 0;
  Counts even{};
  Counts odd{};
  size_t used = 0;
  const auto empty_lanes = [&]() noexcept {
    for (size_t l = 0; l < kLanes; ++l) total += static_cast<uint64_t>(even[l]) + odd[l];
    even = odd = Counts{};
    used = 0;
  };
  size_t first_row = 0;
  if (width < kLanes) {
    // A vector that ends where the row does reaches back into the row before, if rows are far enough apart.
    first_row = stride < kVectorBytes ? n_rows : n_rows == 0 ? 0 : 1;
    for (size_t r = 0; r < first_row; ++r) {
      const uint8_t* row = pixels + r * stride;
      for (size_t x = 0; x < width; ++x) {
        const Key key = pixel_key<P>(load<Key>(row + x * sizeof(Key)));
        total += static_cast<uint64_t>(!range.holds(key));
      }
    }
  }
  for (size_t r = first_row; r < n_rows; ++r) {
    const uint8_t* at = pixels + r * stride;
    const uint8_t* end = at + width * sizeof(Key);
    for (size_t left = width / kLanes; left != 0;) {
      if (used + 2 > kMost) empty_lanes();
      // Two lanes sets take turns, so each is used half as often.
      const size_t room = 2 * (kMost - used - 1);
      const size_t now = left < room ? left : room;
      for (size_t v = now / 2; v != 0; --v, at += 2 * kVectorBytes) {
        even -= is_outside(at);
        odd -= is_outside(at + kVectorBytes);
      }
      if (now % 2 != 0) {
        even -= is_outside(at);
        at += kVectorBytes;
      }
      used += (now + 1) / 2;
      left -= now;
    }
    if (tail != 0) {
      if (used + 1 > kMost) empty_lanes();
      odd -= is_outside(end - kVectorBytes) & tail_lanes;
      used += 1;
    }
  }
  empty_lanes();
  return total;
}

template <class P>
uint64_t count_range(const void* pixels, size_t stride, size_t width, size_t n_rows, int32_t first,
                     int32_t last) noexcept {
  const uint8_t* bytes = static_cast<const uint8_t*>(pixels);
  const uint64_t n = static_cast<uint64_t>(width) * n_rows;
  const Range<P> range(first, last);
  if (stride == width * sizeof(typename P::Key)) {  // whole rows: one long one
    width *= n_rows;
    n_rows = n_rows == 0 ? 0 : 1;
  }
  if (P::kFloat && first > 0) return n - count_outside<P, true>(bytes, stride, width, n_rows, range);
  return n - count_outside<P, false>(bytes, stride, width, n_rows, range);
}
