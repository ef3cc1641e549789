// Codes of a column of values (design.md, section 4, 2). A uniform grid gives the first candidate: its cell function is
// monotone, so every edge in a lower cell is below the value and every edge in a higher cell above it. What is left,
// the edges in the value's own cell, is decided by comparing keys. The grid's scale is limited (see
// segment_encoder.cpp) so that flushing subnormals cannot move a value to another cell.

constexpr size_t kEncodeBlock = 256;

// Writes every position and moves on only past those that count: no branch to mispredict.
template <class Key, class Code>
inline size_t note_outside(const KeyRange<Key>* ranges, Key key, uint32_t code, size_t i, size_t found,
                           uint16_t* positions) noexcept {
  const KeyRange<Key>* range = ranges + code;
  positions[found] = static_cast<uint16_t>(i);
  return found + static_cast<size_t>(static_cast<Key>(key - range->low) >= range->span);
}

template <int kSteps, class Key, class Code>
inline size_t step_codes(const Key* keys, const int32_t* cells, size_t n, const Code* first, const Key* edge_keys,
                         const KeyRange<Key>* ranges, Code* codes, uint16_t* positions) noexcept {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    const Key key = keys[i];
    uint32_t code = first[cells[i]];
    for (int s = 0; s < kSteps; ++s) code += static_cast<uint32_t>(key >= edge_keys[code]);
    codes[i] = static_cast<Code>(code);
    found = note_outside<Key, Code>(ranges, key, code, i, found, positions);
  }
  return found;
}

template <class Key, class Code>
inline size_t search_codes(const Key* keys, size_t n, int bits, const Key* edge_keys, const KeyRange<Key>* ranges,
                           Code* codes, uint16_t* positions) noexcept {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    const Key key = keys[i];
    uint32_t code = 0;
    for (uint32_t half = (1u << bits) >> 1; half != 0; half >>= 1) {
      code += key >= edge_keys[code + half - 1] ? half : 0;
    }
    codes[i] = static_cast<Code>(code);
    found = note_outside<Key, Code>(ranges, key, code, i, found, positions);
  }
  return found;
}

template <class Real, class Key, class Code>
size_t encode(const Real* values, size_t n, const EncodeTable<Real, Key, Code>* table, Key* keys, Code* codes,
              uint16_t* positions) noexcept {
  for (size_t i = 0; i < n; ++i) keys[i] = key_of(values[i]);
  const Key* edges = table->edge_keys;
  if (table->steps == 0) return search_codes(keys, n, table->bits, edges, table->ranges, codes, positions);
  int32_t cells[kEncodeBlock];
  const Real base = table->base;
  const Real scale = table->scale;
  const Real last = static_cast<Real>(table->last_cell);
  for (size_t i = 0; i < n; ++i) {
    Real place = (values[i] - base) * scale;
    place = place > Real(0) ? place : Real(0);
    place = place < last ? place : last;
    cells[i] = static_cast<int32_t>(place);
  }
  switch (table->steps) {
    case 1:
      return step_codes<1>(keys, cells, n, table->cells, edges, table->ranges, codes, positions);
    case 2:
      return step_codes<2>(keys, cells, n, table->cells, edges, table->ranges, codes, positions);
    case 3:
      return step_codes<3>(keys, cells, n, table->cells, edges, table->ranges, codes, positions);
    default:
      return step_codes<4>(keys, cells, n, table->cells, edges, table->ranges, codes, positions);
  }
}
