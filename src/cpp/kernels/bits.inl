// Packing codes of 1 to 12 bits, least significant bit first, and back (docs/ARCHITECTURE.md, "_core"). Eight codes are
// eight times b bits, b whole bytes, handled in a 64-bit word: neighbouring lanes are pushed together (or apart) in
// three steps, pairs of codes, pairs of pairs, halves. The byte order of the machine must be little-endian
// (CMakeLists.txt checks).

// The lanes of two vectors of eight, by constant numbers from 0 to 15.
#if defined(__clang__) || __GNUC__ >= 12
#define NADB_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define NADB_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a){__VA_ARGS__})
#endif

inline uint64_t load_u64(const uint8_t* from) noexcept {
  uint64_t word;
  __builtin_memcpy(&word, from, 8);
  return word;
}

// Eight codes in bytes -> 8 * kBits bits.
template <int kBits>
inline uint64_t squeeze_u8(uint64_t x) noexcept {
  constexpr uint64_t kLow1 = 0x00ff00ff00ff00ffu;
  constexpr uint64_t kLow2 = 0x0000ffff0000ffffu;
  constexpr uint64_t kLow4 = 0x00000000ffffffffu;
  x = (x & kLow1) | ((x & ~kLow1) >> (8 - kBits));
  x = (x & kLow2) | ((x & ~kLow2) >> (16 - 2 * kBits));
  return (x & kLow4) | ((x & ~kLow4) >> (32 - 4 * kBits));
}

template <int kBits>
inline uint64_t spread_u8(uint64_t x) noexcept {
  constexpr uint64_t kMask4 = kBits == 8 ? 0xffffffffu : (uint64_t{1} << (4 * kBits)) - 1;
  constexpr uint64_t kMask2 = ((uint64_t{1} << (2 * kBits)) - 1) * 0x0000000100000001u;
  constexpr uint64_t kMask1 = ((uint64_t{1} << kBits) - 1) * 0x0001000100010001u;
  x = (x & kMask4) | (((x >> (4 * kBits)) & kMask4) << 32);
  x = (x & kMask2) | (((x >> (2 * kBits)) & kMask2) << 16);
  return (x & kMask1) | (((x >> kBits) & kMask1) << 8);
}

// Four codes in 16-bit lanes -> 4 * kBits bits.
template <int kBits>
inline uint64_t squeeze_u16(uint64_t x) noexcept {
  constexpr uint64_t kLow2 = 0x0000ffff0000ffffu;
  constexpr uint64_t kLow4 = 0x00000000ffffffffu;
  x = (x & kLow2) | ((x & ~kLow2) >> (16 - kBits));
  return (x & kLow4) | ((x & ~kLow4) >> (32 - 2 * kBits));
}

template <int kBits>
inline uint64_t spread_u16(uint64_t x) noexcept {
  constexpr uint64_t kMask2 = (uint64_t{1} << (2 * kBits)) - 1;
  constexpr uint64_t kMask1 = ((uint64_t{1} << kBits) - 1) * 0x0000000100000001u;
  x = (x & kMask2) | (((x >> (2 * kBits)) & kMask2) << 32);
  return (x & kMask1) | (((x >> kBits) & kMask1) << 16);
}

template <int kBits>
void pack_u8(const uint8_t* codes, size_t n, uint8_t* packed) noexcept {
  for (size_t i = 0; i < n; i += 8) {
    const uint64_t word = squeeze_u8<kBits>(load_u64(codes + i));
    __builtin_memcpy(packed, &word, kBits);
    packed += kBits;
  }
}

template <int kBits>
void pack_u16(const uint16_t* codes, size_t n, uint8_t* packed) noexcept {
  for (size_t i = 0; i < n; i += 8) {
    uint64_t half[2];
    __builtin_memcpy(half, codes + i, 16);
    const uint64_t first = squeeze_u16<kBits>(half[0]);
    const uint64_t second = squeeze_u16<kBits>(half[1]);
    const uint64_t low = first | (second << (4 * kBits));
    const uint64_t high = second >> (64 - 4 * kBits);
    __builtin_memcpy(packed, &low, 8);
    __builtin_memcpy(packed + 8, &high, kBits - 8);
    packed += kBits;
  }
}

// Codes of up to 8 bits.
template <int kBits>
inline void unpack_eight(uint64_t word, uint16_t* codes) noexcept {
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  typedef uint16_t Lanes __attribute__((vector_size(16)));
  const uint64_t spread = spread_u8<kBits>(word);
  Bytes bytes;
  __builtin_memcpy(&bytes, &spread, 8);
  const Lanes lanes = __builtin_convertvector(bytes, Lanes);
  __builtin_memcpy(codes, &lanes, 16);
}

// Codes of 9 bits and more; `bytes` has 16.
template <int kBits>
inline void unpack_eight_wide(const uint8_t* bytes, uint16_t* codes) noexcept {
  const uint64_t low = load_u64(bytes);
  const uint64_t high = load_u64(bytes + 8);
  const uint64_t first = spread_u16<kBits>(low);
  const uint64_t second = spread_u16<kBits>((low >> (4 * kBits)) | (high << (64 - 4 * kBits)));
  __builtin_memcpy(codes, &first, 8);
  __builtin_memcpy(codes + 4, &second, 8);
}

// Whole words are loaded, of which kBits bytes count, as long as they lie inside the row.
template <int kBits>
void unpack(const uint8_t* packed, size_t n, uint16_t* codes) noexcept {
  constexpr bool kWide = kBits > 8;
  constexpr size_t kLoad = kWide ? 16 : 8;
  const size_t n_bytes = (n * kBits + 7) / 8;
  size_t i = 0;
  size_t at = 0;
  for (; i < n && at + kLoad <= n_bytes; i += 8, at += kBits) {
    if constexpr (kWide) {
      unpack_eight_wide<kBits>(packed + at, codes + i);
    } else {
      unpack_eight<kBits>(load_u64(packed + at), codes + i);
    }
  }
  for (; i < n; i += 8, at += kBits) {
    uint8_t bytes[16] = {0};
    const size_t left = n_bytes - at;
    __builtin_memcpy(bytes, packed + at, left < kBits ? left : kBits);
    if constexpr (kWide) {
      unpack_eight_wide<kBits>(bytes, codes + i);
    } else {
      unpack_eight<kBits>(load_u64(bytes), codes + i);
    }
  }
}

// Without branches, for where a code occurs cannot be foreseen: the sums over the first lanes of a vector in three
// steps, of 1, 2 and 4 lanes.
size_t rank_code(uint16_t* codes, size_t n, uint16_t code) noexcept {
  typedef uint16_t Lanes __attribute__((vector_size(16)));
  const Lanes wanted = Lanes{} + code;
  Lanes before{};  // how many came before the vector, in every lane
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    Lanes lanes;
    __builtin_memcpy(&lanes, codes + i, 16);
    const Lanes is = (Lanes)(lanes == wanted);  // -1 where it is
    Lanes sums = is;
    sums += NADB_SHUFFLE(sums, Lanes{}, 8, 0, 1, 2, 3, 4, 5, 6);
    sums += NADB_SHUFFLE(sums, Lanes{}, 8, 8, 0, 1, 2, 3, 4, 5);
    sums += NADB_SHUFFLE(sums, Lanes{}, 8, 8, 8, 8, 0, 1, 2, 3);
    lanes += (before + is - sums) & is;
    before -= NADB_SHUFFLE(sums, sums, 7, 7, 7, 7, 7, 7, 7, 7);
    __builtin_memcpy(codes + i, &lanes, 16);
  }
  uint16_t found = before[0];
  for (; i < n; ++i) {
    if (codes[i] == code) codes[i] = static_cast<uint16_t>(code + found++);
  }
  return found;
}
