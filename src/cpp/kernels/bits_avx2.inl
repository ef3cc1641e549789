// AVX2 bodies of unpack and rank_code (bits.inl), sixteen codes at a time.

// Eight codes are kBits whole bytes, so both halves of a vector do the same: each lane takes the two bytes that its
// code lies in, moves it to the top with a product and down again. 11 bits may lie in three bytes: the body of
// bits.inl.
template <int kBits>
void unpack_avx2(const uint8_t* packed, size_t n, uint16_t* codes) noexcept {
  static_assert(kBits <= 12 && kBits != 11, "a code must lie in two neighbouring bytes");
  alignas(32) uint8_t bytes[32];
  alignas(32) uint16_t powers[16];
  for (int lane = 0; lane < 16; ++lane) {
    const int bit = lane % 8 * kBits;
    bytes[2 * lane] = static_cast<uint8_t>(bit / 8);
    bytes[2 * lane + 1] = static_cast<uint8_t>(bit / 8 + 1);
    powers[lane] = static_cast<uint16_t>(1u << (16 - kBits - bit % 8));
  }
  const __m256i pick = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
  const __m256i raise = _mm256_load_si256(reinterpret_cast<const __m256i*>(powers));
  const size_t n_bytes = (n * kBits + 7) / 8;
  size_t i = 0;
  for (size_t at = 0; i + 16 <= n && at + kBits + 16 <= n_bytes; i += 16, at += 2 * kBits) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + at));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + at + kBits));
    const __m256i pairs = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), pick);
    const __m256i lanes = _mm256_srli_epi16(_mm256_mullo_epi16(pairs, raise), 16 - kBits);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), lanes);
  }
  unpack<kBits>(packed + i / 8 * kBits, n - i, codes + i);
}

size_t rank_code_avx2(uint16_t* codes, size_t n, uint16_t code) noexcept {
  const __m256i wanted = _mm256_set1_epi16(static_cast<short>(code));
  const __m256i last_lane = _mm256_set1_epi16(0x0f0e);
  __m256i before = _mm256_setzero_si256();  // how many came before the vector, in every lane
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    const __m256i is = _mm256_cmpeq_epi16(lanes, wanted);  // -1 where it is
    __m256i sums = _mm256_add_epi16(is, _mm256_slli_si256(is, 2));
    sums = _mm256_add_epi16(sums, _mm256_slli_si256(sums, 4));
    sums = _mm256_add_epi16(sums, _mm256_slli_si256(sums, 8));
    const __m256i halves = _mm256_shuffle_epi8(sums, last_lane);
    sums = _mm256_add_epi16(sums, _mm256_permute2x128_si256(halves, halves, 0x08));  // the first half's to the second
    const __m256i rank = _mm256_sub_epi16(_mm256_add_epi16(before, is), sums);
    lanes = _mm256_add_epi16(lanes, _mm256_and_si256(is, rank));
    before = _mm256_sub_epi16(before, _mm256_add_epi16(halves, _mm256_permute4x64_epi64(halves, 0x4e)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), lanes);
  }
  size_t found = static_cast<uint16_t>(_mm256_extract_epi16(before, 0));
  for (; i < n; ++i) {
    if (codes[i] == code) codes[i] = static_cast<uint16_t>(code + found++);
  }
  return found;
}
