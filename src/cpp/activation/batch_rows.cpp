// Checking and gathering the rows of an append; see batch_rows.h.
#include "activation/batch_rows.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "activation/non_finite.h"
#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

constexpr std::size_t kValuesPerTask = std::size_t{1} << 18;

std::size_t find_bad(const float* row, std::size_t n) { return active_kernels().find_non_finite_f32(row, n); }
std::size_t find_bad(const double* row, std::size_t n) { return active_kernels().find_non_finite_f64(row, n); }

}  // namespace

template <class Real>
std::vector<const Real*> checked_rows(const Batch<Real>& batch, std::size_t n_neurons, std::size_t n_left,
                                      int threads) {
  if (batch.n > n_left) {
    throw std::invalid_argument("`order` must have at most the " + std::to_string(n_left) +
                                " rows that are left of the segment, got " + std::to_string(batch.n));
  }
  std::vector<const Real*> rows(batch.n);
  for (std::size_t i = 0; i < batch.n; ++i) {
    const std::int32_t entry = batch.order[i];
    const bool in_batch = entry >= 0;
    const auto row = static_cast<std::size_t>(in_batch ? entry : ~entry);
    if (row >= (in_batch ? batch.n_batch : batch.n_sample)) {
      throw std::invalid_argument("`order` must lie in [" + std::to_string(-static_cast<long long>(batch.n_sample)) +
                                  ", " + std::to_string(batch.n_batch) + ") (batch rows, or ~sample rows), got " +
                                  std::to_string(entry) + " at position " + std::to_string(i));
    }
    rows[i] = (in_batch ? batch.batch : batch.sample) + row * n_neurons;
  }
  const std::size_t rows_per_task = std::max<std::size_t>(1, kValuesPerTask / n_neurons);
  const std::size_t n_tasks = (batch.n + rows_per_task - 1) / rows_per_task;
  std::atomic<std::size_t> first_bad{batch.n};
  parallel_for(n_tasks, threads, [&](std::size_t task, std::size_t) {
    const std::size_t end = std::min(batch.n, (task + 1) * rows_per_task);
    for (std::size_t i = task * rows_per_task; i < end; ++i) {
      if (find_bad(rows[i], n_neurons) == n_neurons) continue;
      std::size_t known = first_bad.load();
      while (i < known && !first_bad.compare_exchange_weak(known, i)) {
      }
      return;
    }
  });
  const std::size_t bad_row = first_bad.load();
  if (bad_row < batch.n) {
    const std::size_t neuron = find_bad(rows[bad_row], n_neurons);
    throw NonFiniteError(bad_row, neuron, static_cast<double>(rows[bad_row][neuron]));
  }
  return rows;
}

template <class Real>
void transpose_block(const Real* const* rows, std::size_t n, std::size_t width, std::size_t stride, Real* out) {
  if (width == kTransposeWidth) {
    if constexpr (sizeof(Real) == 4) {
      active_kernels().transpose_f32(rows, n, stride, out);
    } else {
      active_kernels().transpose_f64(rows, n, stride, out);
    }
    return;
  }
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < width; ++c) out[c * stride + r] = rows[r][c];
  }
}

template std::vector<const float*> checked_rows<float>(const Batch<float>&, std::size_t, std::size_t, int);
template std::vector<const double*> checked_rows<double>(const Batch<double>&, std::size_t, std::size_t, int);
template void transpose_block<float>(const float* const*, std::size_t, std::size_t, std::size_t, float*);
template void transpose_block<double>(const double* const*, std::size_t, std::size_t, std::size_t, double*);

}  // namespace nadb::activation
