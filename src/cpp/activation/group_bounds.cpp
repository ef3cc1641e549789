// Bounds of a neuron group; see group_bounds.h. Inputs go by blocks that stay in a near cache while the neurons pass
// over them.
#include "activation/group_bounds.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "activation/packed_codes.h"
#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

constexpr std::size_t kLookupsPerThread = std::size_t{1} << 21;  // a millisecond; torch's threads may still be spinning
constexpr std::size_t kChunk = 8192;  // inputs; multiples of 8, so that their codes start on whole bytes
constexpr std::size_t kBlock = 512;
constexpr std::size_t kTableBytes = 16384;  // of the neurons that are added together
constexpr std::size_t kLeastTogether = 4;
constexpr std::size_t kMostTogether = 16;

// Asks for the n bytes from `from` on.
void prefetch(const void* from, std::size_t n) {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  for (std::uintptr_t line = address & ~std::uintptr_t{63}; line < address + n; line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(line));
  }
}

// As kernels take a table entry and an accumulator: the two ends of an input.
struct alignas(16) Pair {
  double lower;
  double upper;
};

// What a worker writes into; nothing of it has a value before. Sizes follow the task: small ones touch little memory.
struct CodeScratch {
  CodeScratch(std::size_t chunk, std::size_t n_entries, std::size_t n_neurons)
      : acc(new Pair[chunk]),
        tables(new Pair[n_entries]),
        codes(new std::uint16_t[kMostTogether * kBlock]),
        next(new std::int64_t[n_neurons]) {}

  std::unique_ptr<Pair[]> acc;             // one chunk
  std::unique_ptr<Pair[]> tables;          // of the neurons that are added together
  std::unique_ptr<std::uint16_t[]> codes;  // theirs, one block
  std::unique_ptr<std::int64_t[]> next;    // per neuron, the next maxima term
};

// Inputs go by chunks, whose accumulators stay in the second-level cache; the neurons pass over a chunk a few at a
// time, so that their tables stay in the first-level one; codes are unpacked a block at a time. A table has room for a
// block's exact terms from its top entry on: there the top codes of the block, numbered in input order, find them, and
// each term enters the score at its neuron's place.
class CodeBounds {
 public:
  CodeBounds(const GroupShape& shape, const std::uint8_t* const* rows, int bits, const double* tables,
             const MaximaTerms& maxima, CombineKind combine, bool goes_on)
      : shape_(shape),
        rows_(rows),
        bits_(bits),
        tables_(tables),
        maxima_(maxima),
        combine_(combine),
        goes_on_(goes_on),
        n_codes_(std::size_t{1} << bits),
        table_stride_(n_codes_ - 1 + kBlock),
        together_(std::clamp(kTableBytes / (n_codes_ * sizeof(Pair)), kLeastTogether, kMostTogether)) {}

  CodeScratch make_scratch() const {
    const std::size_t n_rows = std::min(shape_.row_group, shape_.n_inputs);
    return CodeScratch(std::min(kChunk, (n_rows + 7) / 8 * 8), std::min(together_, shape_.n_neurons) * table_stride_,
                       shape_.n_neurons);
  }

  void row_group(std::size_t group, const CodeScratch& s, double* lower, double* upper) const {
    const std::size_t n_rows = shape_.rows_of(group);
    const std::size_t stride = shape_.n_groups() + 1;
    for (std::size_t j = 0; j < shape_.n_neurons; ++j) {
      s.next[j] = maxima_.terms[j] == nullptr ? 0 : maxima_.starts[j * stride + group];
    }
    for (std::size_t begin = 0; begin < n_rows; begin += kChunk) {
      const std::size_t n = std::min(kChunk, n_rows - begin);
      const std::size_t first = group * shape_.row_group + begin;
      if (goes_on_) {
        for (std::size_t i = 0; i < n; ++i) s.acc[i] = {lower[first + i], upper[first + i]};
        std::fill(&s.acc[n], &s.acc[(n + 7) / 8 * 8], Pair{0.0, 0.0});
      }
      for (std::size_t j = 0; j < shape_.n_neurons; j += together_) add_neurons(group, j, begin, n, s);
      active_kernels().split_pairs(&s.acc[0].lower, n, lower + first, upper + first);
    }
    for (std::size_t j = 0; j < shape_.n_neurons; ++j) {
      if (maxima_.terms[j] != nullptr && s.next[j] != maxima_.starts[j * stride + group + 1]) wrong_maxima(group, j);
    }
  }

 private:
  // The neurons from `first` on that are added together, over the inputs [begin, begin + n) of a row group.
  void add_neurons(std::size_t group, std::size_t first, std::size_t begin, std::size_t n, const CodeScratch& s) const {
    const KernelTable& kernels = active_kernels();
    const std::size_t n_neurons = std::min(together_, shape_.n_neurons - first);
    for (std::size_t k = 0; k < n_neurons; ++k) {
      std::memcpy(&s.tables[k * table_stride_], tables_ + 2 * (first + k) * n_codes_, n_codes_ * sizeof(Pair));
    }
    const CodedGroup coded{s.codes.get(), kBlock, &s.tables[0].lower, table_stride_, n_neurons};
    const std::size_t block_bytes = kBlock / 8 * static_cast<std::size_t>(bits_);
    for (std::size_t at = 0; at < n; at += kBlock) {
      const std::size_t size = std::min(kBlock, n - at);
      const std::size_t byte = (begin + at) / 8 * static_cast<std::size_t>(bits_);
      for (std::size_t k = 0; k < n_neurons; ++k) {
        std::uint16_t* codes = &s.codes[k * kBlock];
        const std::uint8_t* packed = rows_[group * shape_.n_neurons + first + k] + byte;
        kernels.unpack[bits_](packed, size, codes);
        if (at + kBlock < n) prefetch(packed + block_bytes, block_bytes);
        if (maxima_.terms[first + k] != nullptr) {
          take_maxima(group, first + k, codes, size, &s.tables[k * table_stride_], s.next[first + k]);
        }
      }
      kernels.look_up[combine_](&coded, size, first == 0 && !goes_on_, &s.acc[at].lower);
    }
  }

  // Numbers the top codes of a block and lays their terms where those numbers point.
  void take_maxima(std::size_t group, std::size_t j, std::uint16_t* codes, std::size_t n, Pair* table,
                   std::int64_t& next) const {
    const auto top = static_cast<std::uint16_t>(n_codes_ - 1);
    const std::size_t n_top = active_kernels().rank_code(codes, n, top);
    const std::int64_t end = maxima_.starts[j * (shape_.n_groups() + 1) + group + 1];
    if (static_cast<std::int64_t>(n_top) > end - next) wrong_maxima(group, j);
    std::memcpy(table + top, maxima_.terms[j] + 2 * next, n_top * sizeof(Pair));
    next += static_cast<std::int64_t>(n_top);
    prefetch(maxima_.terms[j] + 2 * next, n_top * sizeof(Pair));
  }

  [[noreturn]] void wrong_maxima(std::size_t group, std::size_t j) const {
    const std::size_t stride = shape_.n_groups() + 1;
    const std::int64_t expected = maxima_.starts[j * stride + group + 1] - maxima_.starts[j * stride + group];
    const auto top = static_cast<std::uint16_t>(n_codes_ - 1);
    const std::int64_t got = count_code(rows_[group * shape_.n_neurons + j], shape_.rows_of(group), bits_, top);
    throw std::invalid_argument("codes and maxima disagree: neuron " + std::to_string(j) + " of the group has " +
                                std::to_string(got) + " inputs with code " + std::to_string(top) + " in row group " +
                                std::to_string(group) + ", expected " + std::to_string(expected) +
                                "; the codes or the maxima are damaged");
  }

  GroupShape shape_;
  const std::uint8_t* const* rows_;
  int bits_;
  const double* tables_;
  MaximaTerms maxima_;
  CombineKind combine_;
  bool goes_on_;
  std::size_t n_codes_;
  std::size_t table_stride_;  // entries
  std::size_t together_;
};

struct ValueScratch {
  double values[kBlock];
  double terms[kBlock];
};

std::size_t size_of(ColumnType type) {
  if (type == kFloat64) return 8;
  return type == kFloat32 ? 4 : 2;
}

}  // namespace

void code_bounds(const GroupShape& shape, const std::uint8_t* const* rows, int bits, const double* tables,
                 const MaximaTerms& maxima, CombineKind combine, bool goes_on, double* lower, double* upper,
                 int threads, const Poll& poll) {
  const CodeBounds bounds(shape, rows, bits, tables, maxima, combine, goes_on);
  const std::size_t n_threads = threads_for(shape.n_inputs * shape.n_neurons, kLookupsPerThread, threads);
  const std::size_t n_workers = std::max<std::size_t>(1, std::min(shape.n_groups(), n_threads));
  std::vector<CodeScratch> scratch;
  scratch.reserve(n_workers);
  for (std::size_t i = 0; i < n_workers; ++i) scratch.push_back(bounds.make_scratch());
  parallel_for(
      shape.n_groups(), static_cast<int>(n_workers),
      [&](std::size_t group, std::size_t worker) { bounds.row_group(group, scratch[worker], lower, upper); }, poll);
}

void value_scores(const GroupShape& shape, const void* const* columns, ColumnType type, const Term* terms,
                  CombineKind combine, bool goes_on, double* scores, int threads, const Poll& poll) {
  const KernelTable& kernels = active_kernels();
  const std::size_t size = size_of(type);
  const std::size_t n_threads = threads_for(shape.n_inputs * shape.n_neurons, kLookupsPerThread, threads);
  const std::size_t n_workers = std::max<std::size_t>(1, std::min(shape.n_groups(), n_threads));
  std::vector<ValueScratch> scratch(n_workers);
  const auto row_group = [&](std::size_t group, std::size_t worker) {
    ValueScratch& s = scratch[worker];
    const std::size_t n_rows = shape.rows_of(group);
    for (std::size_t begin = 0; begin < n_rows; begin += kBlock) {
      const std::size_t n = std::min(kBlock, n_rows - begin);
      double* acc = scores + group * shape.row_group + begin;
      for (std::size_t j = 0; j < shape.n_neurons; ++j) {
        const Term& term = terms[j];
        const auto* column = static_cast<const std::uint8_t*>(columns[group * shape.n_neurons + j]);
        kernels.widen[type](column + begin * size, n, s.values);
        const bool is_first = j == 0 && !goes_on;
        kernels.term_points[term.kind](s.values, n, &term, is_first ? acc : s.terms);
        if (!is_first) kernels.combine[combine](s.terms, n, acc);
      }
    }
  };
  parallel_for(shape.n_groups(), static_cast<int>(n_workers), row_group, poll);
}

void term_tables(const void* lower, const void* upper, ColumnType type, const std::int64_t* starts, const Term* terms,
                 TermKind kind, std::size_t n_neurons, double* out) {
  const KernelTable& kernels = active_kernels();
  const std::size_t item = type == kFloat32 ? sizeof(float) : sizeof(double);
  const auto* lo = static_cast<const std::uint8_t*>(lower);
  const auto* hi = static_cast<const std::uint8_t*>(upper);
  double wide_lo[kBlock];
  double wide_hi[kBlock];
  for (std::size_t j = 0; j < n_neurons; ++j) {
    const auto end = static_cast<std::size_t>(starts[j + 1]);
    for (auto begin = static_cast<std::size_t>(starts[j]); begin < end; begin += kBlock) {
      const std::size_t size = std::min(kBlock, end - begin);
      kernels.widen[type](lo + begin * item, size, wide_lo);
      kernels.widen[type](hi + begin * item, size, wide_hi);
      kernels.term_intervals[kind](wide_lo, wide_hi, size, &terms[j], out + 2 * begin);
    }
  }
}

void combine_terms(const double* terms, std::size_t n_terms, std::size_t n, CombineKind combine, double* out) {
  const KernelTable& kernels = active_kernels();
  for (std::size_t begin = 0; begin < n; begin += kBlock) {
    const std::size_t size = std::min(kBlock, n - begin);
    std::memcpy(out + begin, terms + begin, size * sizeof(double));
    for (std::size_t j = 1; j < n_terms; ++j) kernels.combine[combine](terms + j * n + begin, size, out + begin);
  }
}

}  // namespace nadb::activation
