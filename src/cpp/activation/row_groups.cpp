// The queue of row groups; see row_groups.h.
#include "activation/row_groups.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

namespace nadb::activation {

Bytes allocate_zeroed(std::size_t n) {
  Bytes bytes(static_cast<std::uint8_t*>(std::calloc(std::max<std::size_t>(n, 1), 1)));
  if (!bytes) throw std::bad_alloc();
  return bytes;
}

RowGroupQueue::RowGroupQueue(std::size_t n_inputs, std::size_t row_group, std::size_t n_neurons,
                             std::size_t bits_per_input)
    : n_inputs_(n_inputs), row_group_(row_group), n_neurons_(n_neurons), bits_per_input_(bits_per_input) {}

std::size_t RowGroupQueue::rows_of(std::size_t group) const noexcept {
  return std::min(row_group_, n_inputs_ - group * row_group_);
}

void RowGroupQueue::reserve(std::size_t n) {
  if (n == 0) return;
  const std::size_t last = (n_appended_ + n - 1) / row_group_;
  while (n_taken_ + groups_.size() <= last) {
    const std::size_t n_rows = rows_of(n_taken_ + groups_.size());
    if (n_rows > std::numeric_limits<std::size_t>::max() / 8 / bits_per_input_) throw std::bad_alloc();
    const std::size_t row_bytes = (n_rows * bits_per_input_ + 7) / 8;
    if (row_bytes > std::numeric_limits<std::size_t>::max() / n_neurons_) throw std::bad_alloc();
    groups_.push_back({allocate_zeroed(row_bytes * n_neurons_), row_bytes, n_rows});
  }
}

RowGroup& RowGroupQueue::group_of(std::size_t position) { return groups_[position / row_group_ - n_taken_]; }

std::optional<RowGroup> RowGroupQueue::take() {
  if (groups_.empty()) return std::nullopt;
  const std::size_t end = n_taken_ * row_group_ + groups_.front().n_rows;
  if (n_appended_ < end) return std::nullopt;
  std::optional<RowGroup> group(std::move(groups_.front()));
  groups_.pop_front();
  ++n_taken_;
  return group;
}

}  // namespace nadb::activation
