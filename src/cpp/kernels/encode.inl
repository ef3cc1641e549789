// Codes of a column of values (design.md, section 4, 2). A uniform grid gives the first candidate: its cell function is
// monotone, so every edge in a lower cell is below the value and every edge in a higher cell above it. What is left, the
// edges in the value's own cell, is decided by comparing keys. The grid's scale is limited (see encoder.cpp) so that
// flushing subnormals cannot move a value to another cell.

constexpr size_t kEncodeBlock = 256;

template <int kSteps, class Key, class Code>
inline void step_codes(const Key* keys, const int32_t* cells, size_t n, const Code* first, const Key* edge_keys, Code* codes) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t code = first[cells[i]];
    for (int s = 0; s < kSteps; ++s) code += static_cast<uint32_t>(keys[i] >= edge_keys[code]);
    codes[i] = static_cast<Code>(code);
  }
}

template <class Key, class Code>
inline void search_codes(const Key* keys, size_t n, int bits, const Key* edge_keys, Code* codes) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t code = 0;
    for (uint32_t half = (1u << bits) >> 1; half != 0; half >>= 1) {
      code += keys[i] >= edge_keys[code + half - 1] ? half : 0;
    }
    codes[i] = static_cast<Code>(code);
  }
}

template <class Real, class Key, class Code>
void encode(const Real* values, size_t n, const EncodeTable<Real, Key, Code>* table, Key* keys, Code* codes) {
  for (size_t i = 0; i < n; ++i) keys[i] = key_of(values[i]);
  if (table->steps == 0) {
    search_codes(keys, n, table->bits, table->edge_keys, codes);
    return;
  }
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
    case 1: step_codes<1>(keys, cells, n, table->cells, table->edge_keys, codes); break;
    case 2: step_codes<2>(keys, cells, n, table->cells, table->edge_keys, codes); break;
    case 3: step_codes<3>(keys, cells, n, table->cells, table->edge_keys, codes); break;
    default: step_codes<4>(keys, cells, n, table->cells, table->edge_keys, codes); break;
  }
}

// Writes every position and moves on only past those that count: no branch to mispredict.
template <class Key, class Code>
size_t find_outside(const Key* keys, const Code* codes, size_t n, const Key* bounds, uint16_t* positions) {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    const Key* pair = bounds + 2 * static_cast<size_t>(codes[i]);
    positions[found] = static_cast<uint16_t>(i);
    found += static_cast<size_t>((keys[i] < pair[0]) | (keys[i] > pair[1]));
  }
  return found;
}
