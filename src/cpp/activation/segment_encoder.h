// Turns captured rows into a segment in one pass: packed codes in row groups, the true bounds of every partition, and
// the maxima. Implements design.md, section 4, 2, and docs/ARCHITECTURE.md, "Encoder".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "activation/batch_rows.h"
#include "activation/row_groups.h"

namespace nadb::activation {

// Memory: row groups not taken yet; per neuron 2^bits x 3 values and 2^(bits+2) cells of one byte (two above 8 bits); a
// slab of maxima_cap values per neuron, touched only as far as it is filled. Not thread safe.
template <class Real>
class SegmentEncoder {
 public:
  using Value = Real;

  // edges: n_neurons x (2^bits - 1), read here only. Throws std::invalid_argument if they are NaN or not ascending.
  SegmentEncoder(const Real* edges, std::size_t n_neurons, int bits, std::size_t n_inputs, std::size_t row_group,
                 std::size_t maxima_cap, int threads);

  // Throws as checked_rows does, with nothing changed.
  void append(const Batch<Real>& batch, int threads);

  // A row group has n_neurons rows of ceil(n_rows * bits / 8) bytes.
  std::optional<RowGroup> take_row_group() { return groups_.take(); }

  // Closes the encoder: partition bounds become floats. Throws std::invalid_argument while inputs are missing, or
  // twice.
  void finish();

  // After finish(). bounds: n_neurons x 2^bits x 2, least and greatest value of the partition, (inf, -inf) if empty.
  Bytes take_bounds() { return std::move(bounds_); }
  std::size_t n_maxima() const noexcept;
  // starts: n_neurons x (n_groups + 1), maxima: n_maxima().
  void write_maxima(std::int64_t* starts, Real* maxima) const;

  const RowGroupQueue& groups() const noexcept { return groups_; }
  int bits() const noexcept { return bits_; }

 private:
  struct Neuron {
    Real base;
    Real scale;
    std::int32_t steps;
    bool keeps_maxima;  // and then the bounds of the top partition are top_low, top_high, not that in bounds_
    std::uint32_t n_maxima;
    Real top_low;
    Real top_high;
  };
  struct Scratch;

  template <class Code>
  void build_cells(std::size_t neuron, const Real* edges, Code* cells);
  template <class Code>
  void append_block(const std::vector<const Real*>& rows, std::size_t block, Scratch& scratch);
  template <class Code>
  void encode_column(std::size_t neuron, const Real* values, std::size_t n, std::size_t position, Scratch& scratch);
  void prefetch(std::size_t neuron) const;
  void note_top(std::size_t neuron, Real value);

  int bits_;
  std::size_t n_partitions_;
  std::size_t n_cells_;
  std::size_t maxima_cap_;
  RowGroupQueue groups_;
  std::vector<Neuron> neurons_;
  Bytes edge_keys_;                  // n_neurons x n_partitions keys: the edges, and one that no value reaches
  Bytes cells_;                      // n_neurons x n_cells first candidates, uint8 or uint16
  Bytes bounds_;                     // n_neurons x n_partitions ranges of keys; pairs of values after finish()
  Bytes slab_;                       // n_neurons x maxima_cap values
  std::vector<std::uint32_t> ends_;  // n_neurons x n_groups: maxima of the neuron up to the end of the group
  bool finished_ = false;
};

}  // namespace nadb::activation
