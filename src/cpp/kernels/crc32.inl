// CRC-32 as in zlib, gzip and PNG (polynomial 0xEDB88320, reflected), by table look-ups: what verifies every block that
// is read (design.md, section 6). Four interleaved streams of 8-byte words, whose look-ups do not wait for one another
// (Kadatch and Jenkins, "Everything we know about CRC but afraid to forget", 2010).
//
// A register is a polynomial of degree < 32 with the coefficient of x^0 in its top bit: a shift to the right multiplies
// by x, and feeding a byte b multiplies register + b by x^8, modulo the polynomial.

constexpr uint32_t kCrcPolynomial = 0xEDB88320u;
constexpr uint32_t kCrcOne = 0x80000000u;  // x^0
constexpr size_t kCrcStreams = 4;
constexpr size_t kCrcTables = 8 * kCrcStreams;

constexpr uint32_t crc_times_x(uint32_t value) noexcept {
  return (value >> 1) ^ ((value & 1u) != 0 ? kCrcPolynomial : 0u);
}

struct CrcTables {
  // after[z][b]: the register of byte b followed by z zero bytes.
  uint32_t after[kCrcTables][256];
};

constexpr CrcTables make_crc_tables() noexcept {
  CrcTables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t value = b;
    for (int bit = 0; bit < 8; ++bit) value = crc_times_x(value);
    tables.after[0][b] = value;
  }
  for (size_t z = 1; z < kCrcTables; ++z) {
    for (size_t b = 0; b < 256; ++b) {
      const uint32_t before = tables.after[z - 1][b];
      tables.after[z][b] = (before >> 8) ^ tables.after[0][before & 0xff];
    }
  }
  return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

inline uint64_t crc_word(const uint8_t* at) noexcept {
  uint64_t word;
  __builtin_memcpy(&word, at, sizeof word);
  return word;
}

// The register of eight bytes followed by `zeros` zero bytes.
template <size_t zeros>
inline uint32_t crc_of_word(uint64_t word) noexcept {
  uint32_t value = 0;
  for (size_t i = 0; i < 8; ++i) value ^= kCrc.after[zeros + 7 - i][(word >> (8 * i)) & 0xff];
  return value;
}

// Feeds n bytes to a register, without the inversions before and after.
inline uint32_t crc_update(const uint8_t* data, size_t n, uint32_t value) noexcept {
  constexpr size_t kStep = 8 * kCrcStreams;
  if (n >= 2 * kStep) {
    uint32_t streams[kCrcStreams] = {value};
    for (; n >= 2 * kStep; data += kStep, n -= kStep) {
      for (size_t s = 0; s < kCrcStreams; ++s) {
        streams[s] = crc_of_word<kStep - 8>(crc_word(data + 8 * s) ^ streams[s]);
      }
    }
    value = 0;  // the streams meet in the last step
    for (size_t s = 0; s < kCrcStreams; ++s) value = crc_of_word<0>(crc_word(data + 8 * s) ^ streams[s] ^ value);
    data += kStep;
    n -= kStep;
  }
  for (; n >= 8; data += 8, n -= 8) value = crc_of_word<0>(crc_word(data) ^ value);
  for (; n != 0; ++data, --n) value = (value >> 8) ^ kCrc.after[0][(value ^ *data) & 0xff];
  return value;
}

uint32_t crc32(const uint8_t* data, size_t n, uint32_t start) noexcept { return ~crc_update(data, n, ~start); }
