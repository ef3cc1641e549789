// The transposing writer of kept values; see column_writer.h.
#include "activation/column_writer.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace nadb::activation {

namespace {

#include "kernels/float_key.inl"

}  // namespace

template <class Real>
void ColumnWriter<Real>::append(const Batch<Real>& batch, int threads) {
  const std::size_t n_neurons = groups_.n_neurons();
  const std::vector<const Real*> rows = checked_rows(batch, n_neurons, groups_.n_left(), threads);
  groups_.reserve(batch.n);
  const std::size_t first = groups_.n_appended();
  const std::size_t n_blocks = (n_neurons + kBlockNeurons - 1) / kBlockNeurons;
  const std::size_t n_threads = threads_for(batch.n * n_neurons, kValuesPerThread, threads);
  parallel_for(n_blocks, static_cast<int>(n_threads), [&](std::size_t block, std::size_t) {
    Real buffer[kBlockNeurons * kBlockStride];
    const Real* block_rows[kBlockRows];
    const std::size_t begin = block * kBlockNeurons;
    const std::size_t width = std::min(kBlockNeurons, n_neurons - begin);
    for (std::size_t done = 0; done < batch.n;) {
      const std::size_t place = (first + done) % groups_.row_group();
      const std::size_t n = std::min({kBlockRows, batch.n - done, groups_.row_group() - place});
      point_to_block(rows.data() + done, n, begin, block_rows);
      transpose_block(block_rows, n, width, kBlockStride, buffer);
      const RowGroup& group = groups_.group_of(first + done);
      for (std::size_t c = 0; c < width; ++c) {
        Real* column = buffer + c * kBlockStride;
        for (std::size_t r = 0; r < n; ++r) column[r] = real_of_key<Real>(key_of(column[r]));  // -0.0 becomes 0.0
        std::memcpy(group.bytes.get() + (begin + c) * group.row_bytes + place * sizeof(Real), column, n * sizeof(Real));
      }
      done += n;
    }
  });
  groups_.advance(batch.n);
}

template <class Real>
void ColumnWriter<Real>::finish() const {
  if (groups_.n_left() == 0) return;
  throw std::invalid_argument("finish needs all " + std::to_string(groups_.n_inputs()) +
                              " inputs of the segment, got " + std::to_string(groups_.n_appended()));
}

template class ColumnWriter<float>;
template class ColumnWriter<double>;

}  // namespace nadb::activation
