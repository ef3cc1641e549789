// The rows of one append: pointers into the captured batch and the kept sample, checked before anything is encoded
// (docs/ARCHITECTURE.md, "Encoder"). Shared by SegmentEncoder and ColumnWriter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"
#include "parallel_for.h"

namespace nadb::activation {

// Borrowed, row-major, n_neurons wide. Row i of the append is batch[order[i]], or sample[~order[i]] where negative.
template <class Real>
struct Batch {
  const Real* batch;
  std::size_t n_batch;
  const Real* sample;
  std::size_t n_sample;
  const std::int32_t* order;
  std::size_t n;
};

// Row pointers in order. Throws std::invalid_argument if an entry of order is out of range, NonFiniteError if a row
// holds a NaN or an infinity (its `row` is the index into order).
template <class Real>
std::vector<const Real*> checked_rows(const Batch<Real>& batch, std::size_t n_neurons, std::size_t n_left, int threads);

// How encoders cut an append into blocks that stay in cache: neurons by rows. Columns of a block are kBlockStride
// apart, not a power of two, so that they use different cache sets.
constexpr std::size_t kBlockNeurons = kTransposeWidth;
constexpr std::size_t kBlockRows = 256;
constexpr std::size_t kBlockStride = kBlockRows + 16;
constexpr std::size_t kValuesPerThread = std::size_t{1} << 16;  // fewer are encoded sooner than a thread is started

// Points to the columns of a block that starts at neuron `first`.
template <class Real>
void point_to_block(const Real* const* rows, std::size_t n, std::size_t first, const Real** out) {
  for (std::size_t r = 0; r < n; ++r) out[r] = rows[r] + first;
}

// out[c * stride + r] = rows[r][c] for r < n and c < width <= kBlockNeurons.
template <class Real>
void transpose_block(const Real* const* rows, std::size_t n, std::size_t width, std::size_t stride, Real* out);

}  // namespace nadb::activation
