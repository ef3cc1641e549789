// CRC-32 by carry-less multiplication, for targets that have AVX2 and PCLMULQDQ: eight 128-bit parts of the data are
// folded at a time, two by one instruction where the CPU has VPCLMULQDQ too; the rest is crc32.inl's (Gopal et al.,
// "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009).
//
// 16 bytes are a polynomial A = L x^64 + H, L being the first 8 bytes: in both, bit i is the coefficient of x^(63-i).
// Moved d bits ahead, A x^d = L x^(d+64) + H x^d, and modulo the polynomial the powers of x are short. The product of
// two such 64-bit values, as 128 bits with bit i the coefficient of x^(127-i), is their product times x: hence the
// constants x^(d+63) and x^(d-1), registers in the upper half of 64 bits.

constexpr size_t kFoldParts = 8;

constexpr int64_t crc_power(size_t exponent) noexcept {
  uint32_t value = kCrcOne;
  for (size_t i = 0; i < exponent; ++i) value = crc_times_x(value);
  return static_cast<int64_t>(static_cast<uint64_t>(value) << 32);
}

// `part` moved `distance` bytes ahead onto `next`.
template <size_t distance>
inline __m128i crc_fold(__m128i part, __m128i next) noexcept {
  constexpr int64_t kFirst = crc_power(8 * distance + 63);
  constexpr int64_t kSecond = crc_power(8 * distance - 1);
  const __m128i powers = _mm_set_epi64x(kSecond, kFirst);
  const __m128i first = _mm_clmulepi64_si128(part, powers, 0x00);
  const __m128i second = _mm_clmulepi64_si128(part, powers, 0x11);
  return _mm_xor_si128(_mm_xor_si128(first, second), next);
}

inline __m128i crc_part(const uint8_t* at) noexcept { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }

// The loop of crc32_folded over n bytes, a multiple of its step, with pairs of parts.
__attribute__((target("avx2,vpclmulqdq"))) inline void crc_fold_pairs(const uint8_t* data, size_t n,
                                                                      __m128i* parts) noexcept {
  constexpr size_t kPairs = kFoldParts / 2;
  constexpr size_t kStep = 16 * kFoldParts;
  constexpr int64_t kFirst = crc_power(8 * kStep + 63);
  constexpr int64_t kSecond = crc_power(8 * kStep - 1);
  const __m256i powers = _mm256_set_epi64x(kSecond, kFirst, kSecond, kFirst);
  __m256i pairs[kPairs];
  for (size_t p = 0; p < kPairs; ++p) pairs[p] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(parts + 2 * p));
  for (; n != 0; data += kStep, n -= kStep) {
    for (size_t p = 0; p < kPairs; ++p) {
      const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + 32 * p));
      const __m256i first = _mm256_clmulepi64_epi128(pairs[p], powers, 0x00);
      const __m256i second = _mm256_clmulepi64_epi128(pairs[p], powers, 0x11);
      pairs[p] = _mm256_xor_si256(_mm256_xor_si256(first, second), next);
    }
  }
  for (size_t p = 0; p < kPairs; ++p) _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts + 2 * p), pairs[p]);
}

uint32_t crc32_folded(const uint8_t* data, size_t n, uint32_t start) noexcept {
  constexpr size_t kStep = 16 * kFoldParts;
  constexpr size_t kLong = 4 * kStep;  // less is not worth asking the CPU, and runs the other loop on every machine
  if (n < kStep) return crc32(data, n, start);
  __m128i parts[kFoldParts];
  for (size_t p = 0; p < kFoldParts; ++p) parts[p] = crc_part(data + 16 * p);
  // A register is fed to by adding it to the first bytes.
  parts[0] = _mm_xor_si128(parts[0], _mm_cvtsi32_si128(static_cast<int32_t>(~start)));
  data += kStep;
  n -= kStep;
  if (n >= kLong && __builtin_cpu_supports("vpclmulqdq")) {
    const size_t whole = n / kStep * kStep;
    crc_fold_pairs(data, whole, parts);
    data += whole;
    n -= whole;
  }
  for (; n >= kStep; data += kStep, n -= kStep) {
    for (size_t p = 0; p < kFoldParts; ++p) parts[p] = crc_fold<kStep>(parts[p], crc_part(data + 16 * p));
  }
  for (size_t p = 0; p < 4; ++p) parts[p] = crc_fold<64>(parts[p], parts[p + 4]);
  for (size_t p = 0; p < 2; ++p) parts[p] = crc_fold<32>(parts[p], parts[p + 2]);
  __m128i last = crc_fold<16>(parts[0], parts[1]);
  for (; n >= 16; data += 16, n -= 16) last = crc_fold<16>(last, crc_part(data));
  uint8_t bytes[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), last);
  return ~crc_update(data, n, crc_update(bytes, sizeof bytes, 0));
}
