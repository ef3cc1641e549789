// Gathering a block of neurons out of row-major batches (src/cpp/activation/batch_rows.h). Four rows at a time, so that
// what is written is whole vectors; rows are far apart in memory, so they are asked for ahead.

constexpr size_t kPrefetchRows = 8;

template <class Real>
void transpose(const Real* const* rows, size_t n, size_t stride, Real* out) noexcept {
  constexpr size_t kLine = 64 / sizeof(Real);
  size_t r = 0;
  for (; r + 4 <= n; r += 4) {
    for (size_t ahead = r + kPrefetchRows; ahead < r + kPrefetchRows + 4 && ahead < n; ++ahead) {
      for (size_t c = 0; c < kTransposeWidth; c += kLine) __builtin_prefetch(rows[ahead] + c);
    }
    const Real* a = rows[r];
    const Real* b = rows[r + 1];
    const Real* c = rows[r + 2];
    const Real* d = rows[r + 3];
    for (size_t i = 0; i < kTransposeWidth; ++i) {
      const Real four[4] = {a[i], b[i], c[i], d[i]};
      __builtin_memcpy(out + i * stride + r, four, sizeof four);
    }
  }
  for (; r < n; ++r) {
    for (size_t i = 0; i < kTransposeWidth; ++i) out[i * stride + r] = rows[r][i];
  }
}
