// Bounds and exact scores of a neuron group for every input of a segment: the sum (min, max) over the neurons of each
// one's term. Implements design.md, section 3, "One arithmetic", and section 4, 3.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "parallel_for.h"

namespace nadb::activation {

// How inputs and neurons lie in row groups: rows[r * n_neurons + j] is neuron j in row group r.
struct GroupShape {
  std::size_t n_neurons;  // at least 1
  std::size_t row_group;  // inputs per row group, at least 1
  std::size_t n_inputs;

  std::size_t n_groups() const noexcept { return (n_inputs + row_group - 1) / row_group; }
  std::size_t rows_of(std::size_t group) const noexcept {
    const std::size_t left = n_inputs - group * row_group;
    return left < row_group ? left : row_group;
  }
};

// Tables of several neurons, one after another: out[i] is the interval of the term over the values [lower[i],
// upper[i]], as (lower, upper). lower, upper: starts[n_neurons] values of `type` (kFloat32 or kFloat64), those of
// neuron j from starts[j] on. starts: n_neurons + 1, rising from 0. terms: one per neuron.
void term_tables(const void* lower, const void* upper, ColumnType type, const std::int64_t* starts, const Term* terms,
                 TermKind kind, std::size_t n_neurons, double* out);

// The exact terms of the inputs in each neuron's top partition, in input order; terms[j] is nullptr where neuron j
// keeps none. starts: n_neurons x (n_groups + 1), positions in terms[j].
struct MaximaTerms {
  const double* const* terms;
  const std::int64_t* starts;
};

// lower, upper: n_inputs each. tables: n_neurons x 2^bits x 2, intervals of the term per code. Inputs whose code is the
// top one take the next entry of the neuron's maxima terms instead, where it keeps them. NaN widens to an unbounded
// end. `goes_on`: lower and upper hold what the group's neurons before these gave. Throws std::invalid_argument if a
// row has another number of top codes than its maxima: the codes are damaged.
void code_bounds(const GroupShape& shape, const std::uint8_t* const* rows, int bits, const double* tables,
                 const MaximaTerms& maxima, CombineKind combine, bool goes_on, double* lower, double* upper,
                 int threads, const Poll& poll);

// The exact scores, from kept values. columns[r * n_neurons + j]: values of `type`. terms: one per neuron. NaN stays
// NaN. `goes_on`: scores hold what the group's neurons before these gave.
void value_scores(const GroupShape& shape, const void* const* columns, ColumnType type, const Term* terms,
                  CombineKind combine, bool goes_on, double* scores, int threads, const Poll& poll);

// out[i] = terms[0][i] (+, min, max) terms[1][i] ..., left to right; terms: n_terms x n, n_terms >= 1.
void combine_terms(const double* terms, std::size_t n_terms, std::size_t n, CombineKind combine, double* out);

}  // namespace nadb::activation
