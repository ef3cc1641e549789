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
constexpr size_t kColumnLanes = 32;     // columns of a mask that are counted together

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

// A few neurons of a group: neuron j has codes[j * code_stride + i] for input i, and its entry for a code c, a (lower,
// upper) pair of doubles, at tables + 2 * (j * table_stride + c), aligned to 16. n_neurons is at least 1.
struct CodedGroup {
  const uint16_t* codes;
  size_t code_stride;
  const double* tables;
  size_t table_stride;
  size_t n_neurons;
};

// What a neuron adds to a score, of its value v: see terms.inl.
enum TermKind { kTermValue = 0, kTermSquare = 1, kTermAbsDiff = 2, kTermSqDiff = 3, kTermProduct = 4, kTermCount = 5 };
struct Term {
  TermKind kind;
  double target;  // of abs_diff, sq_diff and product
  double weight;
  bool weighted;  // without it the weight is left out
};

enum ColumnType { kFloat16 = 0, kBFloat16 = 1, kFloat32 = 2, kFloat64 = 3, kColumnTypeCount = 4 };

// What a mask is made of. The key of a pixel is a signed integer in the same order (pixels.inl): 8 bits wide for
// kPixelU8, 32 for kPixelF32, else 16. Keys travel as int32_t.
enum PixelType { kPixelU8 = 0, kPixelU16 = 1, kPixelF16 = 2, kPixelF32 = 3, kPixelTypeCount = 4 };

// The rows of a histogram index from which cells are bounded: cell_bounds.inl.
enum CellRow { kLowUpper = 0, kLowLower = 1, kHighUpper = 2, kHighLower = 3, kCellRowCount = 4 };
struct CellRows {
  const uint8_t* rows[kCellRowCount];
  size_t strides[kCellRowCount];  // bytes from one mask's cells to the next one's; 0: all masks alike
  bool greatest[kCellRowCount];   // the greatest N of the byte is meant, not the least
  bool any_low;                   // false: every pixel is at or above `low`, its two rows are not read
  bool any_high;                  // false: no pixel is at or above `high`, its two rows are not read
};
// What the cells of consecutive masks are: a stride of 0 means that all masks have the same. `areas` and `overlaps`
// hold n_cells lanes per mask, of the lane type of the kernel; scales[m] is s of design.md, section 5.
struct MaskCells {
  size_t n_cells;
  const void* areas;
  size_t area_stride;
  const void* overlaps;
  size_t overlap_stride;
  const int32_t* scales;
  size_t scale_stride;
};
constexpr int kLaneTypes =
    2;  // 0: int16_t, for areas of at most 32,000 pixels in masks of sides up to 32,767; 1: int32_t

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

  // bits.inl, by number of bits: pack_u8 [1, 8], pack_u16 [9, 12], unpack both. Code i takes bits [i*b, (i+1)*b), least
  // significant first. pack: n is a multiple of 8; writes n*b/8 bytes. unpack: reads ceil(n*b/8) bytes, writes n
  // rounded up to a multiple of 8 codes.
  void (*pack_u8[kMaxBits + 1])(const uint8_t* codes, size_t n, uint8_t* packed);
  void (*pack_u16[kMaxBits + 1])(const uint16_t* codes, size_t n, uint8_t* packed);
  void (*unpack[kMaxBits + 1])(const uint8_t* packed, size_t n, uint16_t* codes);
  // Numbers the codes that equal `code`: code, code + 1, code + 2, ...; returns how many they are. code + n < 65536.
  size_t (*rank_code)(uint16_t* codes, size_t n, uint16_t code);

  // accumulate.inl, by CombineKind. acc[i] = acc[i] (+, min, max) the entries of input i, neuron after neuron; `first`:
  // there is no acc[i] yet. Of acc and codes, n rounded up to a multiple of 8 are read and written; acc is aligned
  // to 16.
  void (*look_up[kCombineCount])(const CodedGroup*, size_t n, bool first, double* acc);
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

  // pixels.inl, by PixelType. Pixels need no alignment. Ranges are keys, both ends included, first <= last, and never
  // take in a NaN.
  // find_outside: index of the first pixel that lies outside the range and is not `exempt` (pass `first` for none; the
  // least key of the width stands for every NaN), n if there is none.
  size_t (*find_outside[kPixelTypeCount])(const void* pixels, size_t n, int32_t first, int32_t last, int32_t exempt);
  // count_range: how many pixels of a box of n_rows x width lie in the range; `stride` bytes lie between rows.
  uint64_t (*count_range[kPixelTypeCount])(const void* pixels, size_t stride, size_t width, size_t n_rows,
                                           int32_t first, int32_t last);
  // mark_range: all[i] &= in, any[i] |= in, where in = pixel i lies in the range and (if `exempts`) is not `exempt`.
  void (*mark_range[kPixelTypeCount])(const void* pixels, size_t n, int32_t first, int32_t last, bool exempts,
                                      int32_t exempt, uint8_t* all, uint8_t* any);
  // pixel_keys: the keys of n pixels; of floats, every NaN and `exempt` get the least key of the width.
  void (*pixel_keys[kPixelTypeCount])(const void* pixels, size_t n, int32_t exempt, void* keys);

  // columns.inl, by PixelType (the width of the key). `padded` is a multiple of kColumnLanes, keys are n_rows x padded.
  // count_columns: counts[e * padded + c] = rows whose key in column c is >= edges[e], in lanes of the key's width:
  // n_rows <= 255 for 8-bit keys, 65,535 for 16. Edges are greater than the least key of the width.
  void (*count_columns[kPixelTypeCount])(const void* keys, size_t n_rows, size_t padded, const int32_t* edges,
                                         size_t n_edges, void* counts);
  // sum_cells: sums[e * grid + j] += counts[e * padded + c] over the columns starts[j] <= c < starts[j + 1].
  void (*sum_cells[kPixelTypeCount])(const void* counts, size_t n_edges, size_t padded, const int32_t* starts,
                                     size_t grid, uint32_t* sums);

  // crc32.inl. CRC-32 of n bytes as zlib has it, continuing from `start`, the CRC-32 of what came before (0: nothing).
  uint32_t (*crc32)(const uint8_t* data, size_t n, uint32_t start);

  // cell_bounds.inl, by lane type. overlap_cells: per box (x0, y0, x1, y1) and cell the pixels that both have, `starts`
  // being int32_t[grid + 1] per axis; n boxes over masks of one shape.
  void (*overlap_cells[kLaneTypes])(const int32_t* boxes, size_t n, size_t grid, const int32_t* y_starts,
                                    const int32_t* x_starts, void* overlaps);
  // bound_masks: certain bounds of the number of pixels in range and box, of n masks. bound_cells: the same cell by
  // cell, without a box.
  void (*bound_masks[kLaneTypes])(const CellRows* rows, const MaskCells* cells, size_t n, double* lower, double* upper);
  void (*bound_cells[kLaneTypes])(const CellRows* rows, const MaskCells* cells, size_t n, int32_t* lower,
                                  int32_t* upper);
};

}  // namespace nadb
