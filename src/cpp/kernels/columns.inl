// Histograms of a grid of cells (design.md, section 5): first down the columns of a strip of rows, a vector of columns
// at a time and eight edges per pass, then along the columns of each cell. No step depends on where cells begin, so
// every lane is used whatever the sizes.

constexpr size_t kEdgesPerPass = 8;

template <class T>
struct UnsignedOf;
template <>
struct UnsignedOf<int8_t> {
  typedef uint8_t Type;
};
template <>
struct UnsignedOf<int16_t> {
  typedef uint16_t Type;
};
template <>
struct UnsignedOf<int32_t> {
  typedef uint32_t Type;
};

template <class Key, size_t kEdges>
void count_some_columns(const Key* keys, size_t n_rows, size_t padded, const Key* below, Key* counts) noexcept {
  typedef typename VectorOf<Key>::Type Vector;
  typedef typename VectorOf<typename UnsignedOf<Key>::Type>::Type Counts;
  constexpr size_t kLanes = kVectorBytes / sizeof(Key);
  Vector limits[kEdges];
  for (size_t e = 0; e < kEdges; ++e) limits[e] = Vector{} + below[e];
  for (size_t c = 0; c < padded; c += kLanes) {
    Counts sums[kEdges] = {};
    const Key* at = keys + c;
    for (size_t r = 0; r < n_rows; ++r, at += padded) {
      const Vector key = load<Vector>(at);
      for (size_t e = 0; e < kEdges; ++e) sums[e] -= (Counts)(key > limits[e]);
    }
    for (size_t e = 0; e < kEdges; ++e) __builtin_memcpy(counts + e * padded + c, &sums[e], sizeof(Counts));
  }
}

template <class Key>
void count_columns(const void* keys, size_t n_rows, size_t padded, const int32_t* edges, size_t n_edges,
                   void* counts) noexcept {
  const Key* from = static_cast<const Key*>(keys);
  Key* to = static_cast<Key*>(counts);
  Key below[kEdgesPerPass];
  size_t e = 0;
  for (; e + kEdgesPerPass <= n_edges; e += kEdgesPerPass) {
    for (size_t i = 0; i < kEdgesPerPass; ++i) below[i] = static_cast<Key>(edges[e + i] - 1);
    count_some_columns<Key, kEdgesPerPass>(from, n_rows, padded, below, to + e * padded);
  }
  if (e + 4 <= n_edges) {
    for (size_t i = 0; i < 4; ++i) below[i] = static_cast<Key>(edges[e + i] - 1);
    count_some_columns<Key, 4>(from, n_rows, padded, below, to + e * padded);
    e += 4;
  }
  for (; e < n_edges; ++e) {
    below[0] = static_cast<Key>(edges[e] - 1);
    count_some_columns<Key, 1>(from, n_rows, padded, below, to + e * padded);
  }
}

// Columns of narrow cells are added up in one go, and cells are differences: so many short loops would cost more.
constexpr size_t kNarrow = 1024;

template <class Key>
void sum_cells(const void* counts, size_t n_edges, size_t padded, const int32_t* starts, size_t grid,
               uint32_t* sums) noexcept {
  typedef typename UnsignedOf<Key>::Type Count;
  const Count* row = static_cast<const Count*>(counts);
  const size_t width = static_cast<size_t>(starts[grid]);
  const bool narrow = width <= 16 * grid && width < kNarrow;
  uint32_t before[kNarrow];
  before[0] = 0;
  for (size_t e = 0; e < n_edges; ++e, row += padded, sums += grid) {
    if (narrow) {
      uint32_t sum = 0;
      for (size_t c = 0; c < width; ++c) {
        sum += row[c];
        before[c + 1] = sum;
      }
      for (size_t j = 0; j < grid; ++j) sums[j] += before[starts[j + 1]] - before[starts[j]];
    } else {
      for (size_t j = 0; j < grid; ++j) {
        uint32_t sum = 0;
        for (int32_t c = starts[j]; c < starts[j + 1]; ++c) sum += row[c];
        sums[j] += sum;
      }
    }
  }
}
