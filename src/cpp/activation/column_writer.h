// Turns captured rows into columns of kept values: the third encoder, for storage="all" (docs/ARCHITECTURE.md, "Exact
// columns are the same index with point intervals").
#pragma once

#include <cstddef>
#include <optional>

#include "activation/batch_rows.h"
#include "activation/row_groups.h"

namespace nadb::activation {

// A row group holds n_neurons rows of n_rows values. -0.0 is kept as 0.0; NaN and infinities are refused. Not thread
// safe.
template <class Real>
class ColumnWriter {
 public:
  using Value = Real;

  ColumnWriter(std::size_t n_inputs, std::size_t row_group, std::size_t n_neurons)
      : groups_(n_inputs, row_group, n_neurons, 8 * sizeof(Real)) {}

  // Throws as checked_rows does, with nothing changed.
  void append(const Batch<Real>& batch, int threads);
  std::optional<RowGroup> take_row_group() { return groups_.take(); }
  // Throws std::invalid_argument while inputs are missing.
  void finish() const;
  const RowGroupQueue& groups() const noexcept { return groups_; }

 private:
  RowGroupQueue groups_;
};

}  // namespace nadb::activation
