// The row groups that an encoder has filled and that nobody has taken yet: byte buffers, neuron-major, one row of bytes
// per neuron (docs/ARCHITECTURE.md, "Segments"). Shared by SegmentEncoder and ColumnWriter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>

namespace nadb::activation {

struct FreeDeleter {
  void operator()(void* pointer) const noexcept { std::free(pointer); }
};
using Bytes = std::unique_ptr<std::uint8_t[], FreeDeleter>;

// n zero bytes (at least one is allocated); throws std::bad_alloc.
Bytes allocate_zeroed(std::size_t n);

struct RowGroup {
  Bytes bytes;            // n_neurons x row_bytes
  std::size_t row_bytes;  // bytes of one neuron
  std::size_t n_rows;     // inputs
};

// Where inputs go: position `row` of group `group`.
class RowGroupQueue {
 public:
  // Rows are `bits_per_input` bits per input, rounded up to whole bytes. All sizes at least 1.
  RowGroupQueue(std::size_t n_inputs, std::size_t row_group, std::size_t n_neurons, std::size_t bits_per_input);

  // Makes room for n more inputs, which must be left; throws std::bad_alloc with nothing changed.
  void reserve(std::size_t n);
  // The open group that input `position` (0-based, of the segment) belongs to; reserve() has made it.
  RowGroup& group_of(std::size_t position);
  void advance(std::size_t n) noexcept { n_appended_ += n; }
  // The first group if it is complete.
  std::optional<RowGroup> take();

  std::size_t n_inputs() const noexcept { return n_inputs_; }
  std::size_t row_group() const noexcept { return row_group_; }
  std::size_t n_groups() const noexcept { return (n_inputs_ + row_group_ - 1) / row_group_; }
  std::size_t n_neurons() const noexcept { return n_neurons_; }
  std::size_t n_appended() const noexcept { return n_appended_; }
  std::size_t n_left() const noexcept { return n_inputs_ - n_appended_; }

 private:
  std::size_t rows_of(std::size_t group) const noexcept;

  std::size_t n_inputs_;
  std::size_t row_group_;
  std::size_t n_neurons_;
  std::size_t bits_per_input_;
  std::size_t n_appended_ = 0;
  std::size_t n_taken_ = 0;  // groups taken; groups_[0] is group n_taken_
  std::deque<RowGroup> groups_;
};

}  // namespace nadb::activation
