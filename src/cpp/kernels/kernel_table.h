// The hot loops of the core as one table of function pointers per instruction set. Everything outside src/cpp/kernels
// calls them through active_kernels() (dispatch.h). Implements design.md, section 9, and style.md, "Kernels".
//
// Common contract: noexcept, no allocation, no I/O; pointers need no alignment beyond their type; inputs and outputs do
// not overlap; n may be 0. `key` is a float's order-preserving integer (float_key.inl): never NaN, -0.0 is 0.0. Every
// target gives the same bits as scalar. No inline functions here: this header is also seen by files compiled for newer
// CPUs.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nadb {

constexpr int kMaxBits = 12;
constexpr size_t kTransposeWidth = 32;  // two cache lines of float32

// The values seen in a partition, as keys: those with key - low < span, modulo 2^n. span == 0: none yet.
template <class Key>
struct KeyRange {
  Key low;
  Key span;
};

// How encode finds the code of a value: a uniform grid over the neuron's edges gives a first candidate, `steps` key
// compares (1 to kEncodeSteps) do the rest; steps == 0 means binary search. `edge_keys` has 2^bits - 1 ascending keys,
// then one that is greater than every finite one. `ranges` has 2^bits entries.
constexpr int kEncodeSteps = 4;
template <class Real, class Key, class Code>
struct EncodeTable {
  Real base;  // cell of v: (v - base) * scale, clamped to [0, last_cell], truncated
  Real scale;
  int32_t last_cell;
  int32_t steps;
  int32_t bits;
  const Code* cells;  // last_cell + 1 first candidates
  const Key* edge_keys;
  const KeyRange<Key>* ranges;
};
typedef EncodeTable<float, uint32_t, uint8_t> EncodeTableF32U8;
typedef EncodeTable<float, uint32_t, uint16_t> EncodeTableF32U16;
typedef EncodeTable<double, uint64_t, uint8_t> EncodeTableF64U8;
typedef EncodeTable<double, uint64_t, uint16_t> EncodeTableF64U16;

enum CombineKind { kCombineSum = 0, kCombineMin = 1, kCombineMax = 2, kCombineCount = 3 };

// What a neuron adds to a score, of its value v: see terms.inl.
enum TermKind { kTermValue = 0, kTermSquare = 1, kTermAbsDiff = 2, kTermSqDiff = 3, kTermProduct = 4, kTermCount = 5 };
struct Term {
  TermKind kind;
  double target;  // of abs_diff, sq_diff and product
  double weight;
  bool weighted;  // without it the weight is left out
};

enum ColumnType { kFloat16 = 0, kBFloat16 = 1, kFloat32 = 2, kFloat64 = 3, kColumnTypeCount = 4 };

struct KernelTable {
  const char* name;
  const char* description;
  // Whether this CPU can run the table.
  bool (*supported)();

  // keys.inl. Index of the first NaN or infinity in values[0, n), n if there is none.
  size_t (*find_non_finite_f32)(const float* values, size_t n);
  size_t (*find_non_finite_f64)(const double* values, size_t n);

  // encode.inl. keys[i] = key(values[i]), codes[i] = number of edges <= values[i]; `positions` gets, ascending, every i
  // whose key lies outside the range of its partition, and has room for n + 1; returns their number. n <= 256, finite
  // values.
  size_t (*encode_f32_u8)(const float* values, size_t n, const EncodeTableF32U8*, uint32_t* keys, uint8_t* codes,
                          uint16_t* positions);
  size_t (*encode_f32_u16)(const float* values, size_t n, const EncodeTableF32U16*, uint32_t* keys, uint16_t* codes,
                           uint16_t* positions);
  size_t (*encode_f64_u8)(const double* values, size_t n, const EncodeTableF64U8*, uint64_t* keys, uint8_t* codes,
                          uint16_t* positions);
  size_t (*encode_f64_u16)(const double* values, size_t n, const EncodeTableF64U16*, uint64_t* keys, uint16_t* codes,
                           uint16_t* positions);
  // transpose.inl. out[c * stride + r] = rows[r][c] for r < n, c < kTransposeWidth.
  void (*transpose_f32)(const float* const* rows, size_t n, size_t stride, float* out);
  void (*transpose_f64)(const double* const* rows, size_t n, size_t stride, double* out);

  // bits.inl, by number of bits: [1, 8] of the u8 ones, [9, 12] of the u16 ones. Code i takes bits [i*b, (i+1)*b),
  // least significant first. pack: n is a multiple of 8; writes n*b/8 bytes. unpack: reads ceil(n*b/8) bytes, writes n
  // rounded up to a multiple of 8 codes.
  void (*pack_u8[kMaxBits + 1])(const uint8_t* codes, size_t n, uint8_t* packed);
  void (*pack_u16[kMaxBits + 1])(const uint16_t* codes, size_t n, uint8_t* packed);
  void (*unpack_u8[kMaxBits + 1])(const uint8_t* packed, size_t n, uint8_t* codes);
  void (*unpack_u16[kMaxBits + 1])(const uint8_t* packed, size_t n, uint16_t* codes);
  // Positions with codes[i] == code, ascending; room for n + 1; n <= 65536.
  size_t (*find_code_u8)(const uint8_t* codes, size_t n, uint8_t code, uint16_t* positions);
  size_t (*find_code_u16)(const uint16_t* codes, size_t n, uint16_t code, uint16_t* positions);

  // accumulate.inl, by CombineKind. `table` and `acc` hold (lower, upper) pairs of doubles.
  // look_up: acc[i] = table[codes[i]]; accumulate: acc[i] = acc[i] (+, min, max) table[codes[i]].
  void (*look_up_u8)(const uint8_t* codes, size_t n, const double* table, double* acc);
  void (*look_up_u16)(const uint16_t* codes, size_t n, const double* table, double* acc);
  void (*accumulate_u8[kCombineCount])(const uint8_t* codes, size_t n, const double* table, double* acc);
  void (*accumulate_u16[kCombineCount])(const uint16_t* codes, size_t n, const double* table, double* acc);
  // acc[i] = acc[i] (+, min, max) terms[i], plain doubles.
  void (*combine[kCombineCount])(const double* terms, size_t n, double* acc);
  // Pairs to two arrays; NaN (inf - inf) widens to -inf below and inf above.
  void (*split_pairs)(const double* pairs, size_t n, double* lower, double* upper);

  // terms.inl. widen: any column type to double, exactly. term_points: the term of each value.
  // term_intervals: (lower, upper) pairs of the term over the values [lower[i], upper[i]].
  void (*widen[kColumnTypeCount])(const void* values, size_t n, double* out);
  void (*term_points[kTermCount])(const double* values, size_t n, const Term* term, double* out);
  void (*term_intervals[kTermCount])(const double* lower, const double* upper, size_t n, const Term* term,
                                     double* pairs);
};

}  // namespace nadb
