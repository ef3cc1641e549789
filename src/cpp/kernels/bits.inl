// Packing codes of 1 to 12 bits, least significant bit first, and back (docs/ARCHITECTURE.md, "_core"). Eight codes are
// eight times b bits, b whole bytes, handled in a 64-bit word: neighbouring lanes are pushed together (or apart) in
// three steps, pairs of codes, pairs of pairs, halves. The byte order of the machine must be little-endian
// (CMakeLists.txt checks).

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

template <int kBits>
void unpack_u8(const uint8_t* packed, size_t n, uint8_t* codes) noexcept {
  const size_t n_bytes = (n * kBits + 7) / 8;
  size_t i = 0;
  size_t at = 0;
  for (; i < n && at + 8 <= n_bytes; i += 8, at += kBits) {  // loads a whole word, of which kBits bytes count
    const uint64_t word = spread_u8<kBits>(load_u64(packed + at));
    __builtin_memcpy(codes + i, &word, 8);
  }
  for (; i < n; i += 8, at += kBits) {
    uint64_t word = 0;
    const size_t left = n_bytes - at;
    __builtin_memcpy(&word, packed + at, left < 8 ? left : 8);
    word = spread_u8<kBits>(word);
    __builtin_memcpy(codes + i, &word, 8);
  }
}

template <int kBits>
void unpack_u16(const uint8_t* packed, size_t n, uint16_t* codes) noexcept {
  const size_t n_bytes = (n * kBits + 7) / 8;
  for (size_t i = 0, at = 0; i < n; i += 8, at += kBits) {
    uint8_t bytes[16] = {0};
    const size_t left = n_bytes - at;
    if (left >= 16) {
      __builtin_memcpy(bytes, packed + at, 16);
    } else {
      __builtin_memcpy(bytes, packed + at, left);
    }
    const uint64_t low = load_u64(bytes);
    const uint64_t high = load_u64(bytes + 8);
    const uint64_t first = spread_u16<kBits>(low);
    const uint64_t second = spread_u16<kBits>((low >> (4 * kBits)) | (high << (64 - 4 * kBits)));
    __builtin_memcpy(codes + i, &first, 8);
    __builtin_memcpy(codes + i + 4, &second, 8);
  }
}

template <class Code>
size_t find_code(const Code* codes, size_t n, Code code, uint16_t* positions) noexcept {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    positions[found] = static_cast<uint16_t>(i);
    found += static_cast<size_t>(codes[i] == code);
  }
  return found;
}
