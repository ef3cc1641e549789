// Bounds of a neuron group; see group_bounds.h. Inputs go by blocks whose accumulators stay in the first-level cache
// while the neurons pass over them.
#include "activation/group_bounds.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "activation/packed_codes.h"
#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

constexpr std::size_t kLookupsPerThread = std::size_t{1} << 17;  // fewer are done sooner than a thread is started
constexpr std::size_t kBlock = 1024;  // inputs; a multiple of 8, so that blocks of codes start on whole bytes

// What leaves an accumulator unchanged, bit for bit.
double neutral(CombineKind combine) {
  if (combine == kCombineSum) return -0.0;
  return combine == kCombineMin ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
}

double combine_pair(CombineKind combine, double acc, double term) {
  if (combine == kCombineSum) return acc + term;
  if (combine == kCombineMin) return term < acc ? term : acc;
  return term > acc ? term : acc;
}

struct CodeScratch {
  double acc[2 * kBlock];
  std::uint8_t codes8[kBlock];
  std::uint16_t codes16[kBlock];
  std::uint16_t positions[kBlock + 1];
  std::vector<std::int64_t> next;  // per neuron, the next maxima term
};

class CodeBounds {
 public:
  CodeBounds(const GroupShape& shape, const std::uint8_t* const* rows, int bits, const double* tables,
             const MaximaTerms& maxima, CombineKind combine)
      : shape_(shape),
        rows_(rows),
        bits_(bits),
        maxima_(maxima),
        combine_(combine),
        table_size_(std::size_t{2} << bits) {
    // Where exact terms take its place, the top entry of a table must change nothing.
    tables_.assign(tables, tables + shape.n_neurons * table_size_);
    for (std::size_t j = 0; j < shape.n_neurons; ++j) {
      if (maxima.terms[j] == nullptr) continue;
      double* top = tables_.data() + (j + 1) * table_size_ - 2;
      top[0] = top[1] = neutral(combine);
    }
  }

  void row_group(std::size_t group, CodeScratch& scratch, double* lower, double* upper) const {
    const KernelTable& kernels = active_kernels();
    const std::size_t n_rows = shape_.rows_of(group);
    const std::size_t stride = shape_.n_groups() + 1;
    scratch.next.assign(shape_.n_neurons, 0);
    for (std::size_t j = 0; j < shape_.n_neurons; ++j) {
      if (maxima_.terms[j] != nullptr) scratch.next[j] = maxima_.starts[j * stride + group];
    }
    for (std::size_t begin = 0; begin < n_rows; begin += kBlock) {
      const std::size_t n = std::min(kBlock, n_rows - begin);
      for (std::size_t j = 0; j < shape_.n_neurons; ++j) add_neuron(group, j, begin, n, scratch);
      const std::size_t first = group * shape_.row_group + begin;
      kernels.split_pairs(scratch.acc, n, lower + first, upper + first);
    }
    for (std::size_t j = 0; j < shape_.n_neurons; ++j) {
      if (maxima_.terms[j] == nullptr) continue;
      const std::int64_t end = maxima_.starts[j * stride + group + 1];
      if (scratch.next[j] != end) wrong_maxima(group, j);
    }
  }

 private:
  void add_neuron(std::size_t group, std::size_t j, std::size_t begin, std::size_t n, CodeScratch& s) const {
    const KernelTable& kernels = active_kernels();
    const std::uint8_t* packed = rows_[group * shape_.n_neurons + j] + begin / 8 * static_cast<std::size_t>(bits_);
    const double* table = tables_.data() + j * table_size_;
    const bool keeps = maxima_.terms[j] != nullptr;
    const auto top = static_cast<std::uint16_t>((1u << bits_) - 1);
    std::size_t n_top = 0;
    if (bits_ <= 8) {
      kernels.unpack_u8[bits_](packed, n, s.codes8);
      (j == 0 ? kernels.look_up_u8 : kernels.accumulate_u8[combine_])(s.codes8, n, table, s.acc);
      if (keeps) n_top = kernels.find_code_u8(s.codes8, n, static_cast<std::uint8_t>(top), s.positions);
    } else {
      kernels.unpack_u16[bits_](packed, n, s.codes16);
      (j == 0 ? kernels.look_up_u16 : kernels.accumulate_u16[combine_])(s.codes16, n, table, s.acc);
      if (keeps) n_top = kernels.find_code_u16(s.codes16, n, top, s.positions);
    }
    if (!keeps) return;
    const std::size_t stride = shape_.n_groups() + 1;
    if (static_cast<std::int64_t>(n_top) > maxima_.starts[j * stride + group + 1] - s.next[j]) wrong_maxima(group, j);
    const double* term = maxima_.terms[j] + 2 * s.next[j];
    for (std::size_t i = 0; i < n_top; ++i, term += 2) {
      double* pair = s.acc + 2 * s.positions[i];
      pair[0] = j == 0 ? term[0] : combine_pair(combine_, pair[0], term[0]);
      pair[1] = j == 0 ? term[1] : combine_pair(combine_, pair[1], term[1]);
    }
    s.next[j] += static_cast<std::int64_t>(n_top);
  }

  [[noreturn]] void wrong_maxima(std::size_t group, std::size_t j) const {
    const std::size_t stride = shape_.n_groups() + 1;
    const std::int64_t expected = maxima_.starts[j * stride + group + 1] - maxima_.starts[j * stride + group];
    const auto top = static_cast<std::uint16_t>((1u << bits_) - 1);
    const std::int64_t got = count_code(rows_[group * shape_.n_neurons + j], shape_.rows_of(group), bits_, top);
    throw std::invalid_argument("codes and maxima disagree: neuron " + std::to_string(j) + " of the group has " +
                                std::to_string(got) + " inputs with code " + std::to_string(top) + " in row group " +
                                std::to_string(group) + ", expected " + std::to_string(expected) +
                                "; the codes or the maxima are damaged");
  }

  GroupShape shape_;
  const std::uint8_t* const* rows_;
  int bits_;
  MaximaTerms maxima_;
  CombineKind combine_;
  std::size_t table_size_;
  std::vector<double> tables_;
};

struct ValueScratch {
  double values[kBlock];
  double upper_values[kBlock];
  double terms[2 * kBlock];
  double acc[2 * kBlock];
};

std::size_t size_of(ColumnType type) {
  if (type == kFloat64) return 8;
  return type == kFloat32 ? 4 : 2;
}

}  // namespace

void code_bounds(const GroupShape& shape, const std::uint8_t* const* rows, int bits, const double* tables,
                 const MaximaTerms& maxima, CombineKind combine, double* lower, double* upper, int threads,
                 const Poll& poll) {
  const CodeBounds bounds(shape, rows, bits, tables, maxima, combine);
  const std::size_t n_threads = threads_for(shape.n_inputs * shape.n_neurons, kLookupsPerThread, threads);
  const std::size_t n_workers = std::max<std::size_t>(1, std::min(shape.n_groups(), n_threads));
  std::vector<CodeScratch> scratch(n_workers);
  parallel_for(
      shape.n_groups(), static_cast<int>(n_workers),
      [&](std::size_t group, std::size_t worker) { bounds.row_group(group, scratch[worker], lower, upper); }, poll);
}

void value_bounds(const GroupShape& shape, const void* const* columns, ColumnType type, const Term* terms,
                  const double* tolerances, CombineKind combine, double* lower, double* upper, int threads,
                  const Poll& poll) {
  const KernelTable& kernels = active_kernels();
  const std::size_t size = size_of(type);
  const std::size_t n_threads = threads_for(shape.n_inputs * shape.n_neurons, kLookupsPerThread, threads);
  const std::size_t n_workers = std::max<std::size_t>(1, std::min(shape.n_groups(), n_threads));
  std::vector<ValueScratch> scratch(n_workers);
  const auto row_group = [&](std::size_t group, std::size_t worker) {
    ValueScratch& s = scratch[worker];
    const std::size_t n_rows = shape.rows_of(group);
    const std::size_t width = tolerances != nullptr ? 2 : 1;  // doubles per input
    for (std::size_t begin = 0; begin < n_rows; begin += kBlock) {
      const std::size_t n = std::min(kBlock, n_rows - begin);
      for (std::size_t j = 0; j < shape.n_neurons; ++j) {
        const Term& term = terms[j];
        const auto* column = static_cast<const std::uint8_t*>(columns[group * shape.n_neurons + j]);
        kernels.widen[type](column + begin * size, n, s.values);
        double* out = j == 0 ? s.acc : s.terms;
        if (tolerances == nullptr) {
          kernels.term_points[term.kind](s.values, n, &term, out);
        } else {
          for (std::size_t i = 0; i < n; ++i) s.upper_values[i] = s.values[i] + tolerances[j];
          for (std::size_t i = 0; i < n; ++i) s.values[i] -= tolerances[j];
          kernels.term_intervals[term.kind](s.values, s.upper_values, n, &term, out);
        }
        if (j > 0) kernels.combine[combine](s.terms, width * n, s.acc);
      }
      const std::size_t first = group * shape.row_group + begin;
      if (tolerances != nullptr) {
        kernels.split_pairs(s.acc, n, lower + first, upper + first);
        continue;
      }
      std::memcpy(lower + first, s.acc, n * sizeof(double));
      if (upper != nullptr && upper != lower) std::memcpy(upper + first, s.acc, n * sizeof(double));
    }
  };
  parallel_for(shape.n_groups(), static_cast<int>(n_workers), row_group, poll);
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
