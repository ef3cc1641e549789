// The segment encoder; see segment_encoder.h. An append works on blocks of 32 neurons by 256 rows: transpose, codes,
// bounds, packing, all in cache.
#include "activation/segment_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

#include "kernels/float_key.inl"

constexpr std::size_t kBlocksPerTask = 2;
constexpr std::size_t kCellsPerPartition = 4;
constexpr std::size_t kMostPrefetched = 4096;  // bytes of a table: beyond, few of its lines are used

// Above this scale, flushing a subnormal difference to zero could move a value to another cell of the grid.
template <class Real>
constexpr Real kMaxScale = std::is_same_v<Real, float> ? Real(0x1p60) : Real(0x1p500);

template <class Code>
void pack(int bits, const Code* codes, std::size_t n, std::uint8_t* packed) {
  if constexpr (sizeof(Code) == 1) {
    active_kernels().pack_u8[bits](codes, n, packed);
  } else {
    active_kernels().pack_u16[bits](codes, n, packed);
  }
}

// Codes whose place is not a whole byte: OR'd in one by one.
template <class Code>
void pack_slowly(int bits, const Code* codes, std::size_t n, std::size_t place, std::uint8_t* row) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t bit = (place + i) * static_cast<std::size_t>(bits);
    std::uint32_t word = static_cast<std::uint32_t>(codes[i]) << (bit % 8);
    for (std::size_t byte = bit / 8; word != 0; ++byte, word >>= 8) row[byte] |= static_cast<std::uint8_t>(word);
  }
}

// Codes at any place of a zeroed row.
template <class Code>
void pack_at(int bits, const Code* codes, std::size_t n, std::size_t place, std::uint8_t* row) {
  const std::size_t head = std::min(n, (8 - place % 8) % 8);
  pack_slowly(bits, codes, head, place, row);
  const std::size_t body = (n - head) / 8 * 8;
  pack(bits, codes + head, body, row + (place + head) / 8 * static_cast<std::size_t>(bits));
  pack_slowly(bits, codes + head + body, n - head - body, place + head + body, row);
}

// The types that belong to a Real and a Code.
template <class Real, class Code>
struct Kernel {
  using Key = typename KeyOf<Real>::Key;
  using Table = EncodeTable<Real, Key, Code>;

  static std::size_t encode(const Real* values, std::size_t n, const Table& table, Key* keys, Code* codes,
                            std::uint16_t* positions) {
    if constexpr (std::is_same_v<Table, EncodeTableF32U8>) {
      return active_kernels().encode_f32_u8(values, n, &table, keys, codes, positions);
    } else if constexpr (std::is_same_v<Table, EncodeTableF32U16>) {
      return active_kernels().encode_f32_u16(values, n, &table, keys, codes, positions);
    } else if constexpr (std::is_same_v<Table, EncodeTableF64U8>) {
      return active_kernels().encode_f64_u8(values, n, &table, keys, codes, positions);
    } else {
      return active_kernels().encode_f64_u16(values, n, &table, keys, codes, positions);
    }
  }
};

template <class Real>
using Range = KeyRange<typename KeyOf<Real>::Key>;

template <class Key>
void widen_range(KeyRange<Key>& range, Key key) {
  if (range.span == 0) {
    range = {key, 1};
    return;
  }
  const Key high = std::max(range.low + (range.span - 1), key);
  const Key low = std::min(range.low, key);
  range = {low, high - low + 1};
}

// The kernel's cell function, for an edge.
template <class Real>
std::int32_t cell_of(Real value, Real base, Real scale, std::int32_t last_cell) {
  Real place = (value - base) * scale;
  place = place > Real(0) ? place : Real(0);
  const auto last = static_cast<Real>(last_cell);
  place = place < last ? place : last;
  return static_cast<std::int32_t>(place);
}

std::size_t checked_product(std::size_t a, std::size_t b) {
  if (b != 0 && a > std::numeric_limits<std::size_t>::max() / b) throw std::bad_alloc();
  return a * b;
}

}  // namespace

template <class Real>
struct SegmentEncoder<Real>::Scratch {
  using Key = typename KeyOf<Real>::Key;
  Real columns[kBlockNeurons * kBlockStride];
  const Real* rows[kBlockRows];
  Key keys[kBlockRows];
  std::uint16_t codes[kBlockRows];  // also used as uint8
  std::uint16_t positions[kBlockRows + 1];
};

template <class Real>
SegmentEncoder<Real>::SegmentEncoder(const Real* edges, std::size_t n_neurons, int bits, std::size_t n_inputs,
                                     std::size_t row_group, std::size_t maxima_cap, int threads)
    : bits_(bits),
      n_partitions_(std::size_t{1} << bits),
      n_cells_(kCellsPerPartition * n_partitions_),
      maxima_cap_(maxima_cap),
      groups_(n_inputs, row_group, n_neurons, static_cast<std::size_t>(bits)),
      neurons_(n_neurons) {
  using Key = typename KeyOf<Real>::Key;
  const std::size_t n_edges = n_partitions_ - 1;
  const std::size_t code_bytes = bits <= 8 ? 1 : 2;
  edge_keys_ = allocate_zeroed(checked_product(n_neurons, n_partitions_ * sizeof(Key)));
  cells_ = allocate_zeroed(checked_product(n_neurons, n_cells_ * code_bytes));
  bounds_ = allocate_zeroed(checked_product(n_neurons, n_partitions_ * sizeof(Range<Real>)));  // all empty
  if (maxima_cap_ > 0) {
    slab_ = allocate_zeroed(checked_product(n_neurons, checked_product(maxima_cap_, sizeof(Real))));
    ends_.assign(checked_product(n_neurons, groups_.n_groups()), 0);
  }
  const std::size_t n_tasks = (n_neurons + 255) / 256;
  parallel_for(n_tasks, threads, [&](std::size_t task, std::size_t) {
    for (std::size_t j = task * 256; j < std::min(n_neurons, task * 256 + 256); ++j) {
      const Real* own = edges + j * n_edges;
      Key* keys = reinterpret_cast<Key*>(edge_keys_.get()) + j * n_partitions_;
      for (std::size_t e = 0; e < n_edges; ++e) {
        keys[e] = key_of(own[e]);
        if (!std::isnan(own[e]) && (e == 0 || keys[e - 1] <= keys[e])) continue;
        throw std::invalid_argument("`edges` must be ascending per neuron and not NaN, got " + std::to_string(own[e]) +
                                    (e > 0 ? " after " + std::to_string(own[e - 1]) : std::string()) + " at neuron " +
                                    std::to_string(j) + ", edge " + std::to_string(e));
      }
      keys[n_edges] = std::numeric_limits<Key>::max();
      if (bits_ <= 8) {
        build_cells(j, own, cells_.get() + j * n_cells_);
      } else {
        build_cells(j, own, reinterpret_cast<std::uint16_t*>(cells_.get()) + j * n_cells_);
      }
      neurons_[j].keeps_maxima = maxima_cap_ > 0;
      neurons_[j].n_maxima = 0;
      neurons_[j].top_low = std::numeric_limits<Real>::infinity();
      neurons_[j].top_high = -std::numeric_limits<Real>::infinity();
    }
  });
}

// The grid of a neuron: cells[c] = number of edges in lower cells. Edges at -inf count everywhere, edges at +inf never.
template <class Real>
template <class Code>
void SegmentEncoder<Real>::build_cells(std::size_t neuron, const Real* edges, Code* cells) {
  const std::size_t n_edges = n_partitions_ - 1;
  std::size_t first = 0;
  while (first < n_edges && std::isinf(edges[first]) && edges[first] < Real(0)) ++first;
  std::size_t last = n_edges;
  while (last > first && std::isinf(edges[last - 1])) --last;

  Neuron& own = neurons_[neuron];
  const auto last_cell = static_cast<std::int32_t>(n_cells_ - 1);
  own.base = first < last ? edges[first] : Real(0);
  own.scale = first < last ? static_cast<Real>(n_cells_) / (edges[last - 1] - edges[first]) : Real(0);
  if (!(own.scale > Real(0) && own.scale <= kMaxScale<Real>)) own.scale = Real(0);  // one cell, or binary search

  std::size_t most = 0;
  std::size_t e = first;
  for (std::int32_t c = 0; c <= last_cell; ++c) {
    cells[c] = static_cast<Code>(e);
    const std::size_t before = e;
    while (e < last && cell_of(edges[e], own.base, own.scale, last_cell) == c) ++e;
    most = std::max(most, e - before);
  }
  own.steps =
      most <= static_cast<std::size_t>(kEncodeSteps) ? std::max<std::int32_t>(1, static_cast<std::int32_t>(most)) : 0;
}

// Asks for the tables of a neuron, which a batch visits once each and in no order that the hardware foresees.
template <class Real>
void SegmentEncoder<Real>::prefetch(std::size_t neuron) const {
  constexpr std::size_t kLine = 64;
  const auto ask = [neuron](const Bytes& bytes, std::size_t size) {
    if (size > kMostPrefetched) return;
    const std::uint8_t* first = bytes.get() + neuron * size;
    for (std::size_t at = 0; at < size; at += kLine) __builtin_prefetch(first + at);
  };
  ask(bounds_, n_partitions_ * sizeof(Range<Real>));
  ask(edge_keys_, n_partitions_ * sizeof(Real));
  ask(cells_, n_cells_ * (bits_ <= 8 ? 1 : 2));
}

template <class Real>
void SegmentEncoder<Real>::note_top(std::size_t neuron, Real value) {
  Neuron& own = neurons_[neuron];
  if (key_of(value) < key_of(own.top_low)) own.top_low = value;
  if (key_of(value) > key_of(own.top_high)) own.top_high = value;
  if (own.n_maxima < maxima_cap_) {
    reinterpret_cast<Real*>(slab_.get())[neuron * maxima_cap_ + own.n_maxima] = value;
    ++own.n_maxima;
    return;
  }
  // Over the cap: the top partition becomes an ordinary one.
  own.keeps_maxima = false;
  own.n_maxima = 0;
  Range<Real>& top = reinterpret_cast<Range<Real>*>(bounds_.get())[(neuron + 1) * n_partitions_ - 1];
  widen_range(top, key_of(own.top_low));
  widen_range(top, key_of(own.top_high));
}

// Codes, bounds, maxima and packed bits of n <= kBlockRows values of one neuron, inputs [position, position + n), all
// of one row group. While a neuron keeps maxima, the range of its top partition stays empty, so that the kernel reports
// every value of it.
template <class Real>
template <class Code>
void SegmentEncoder<Real>::encode_column(std::size_t neuron, const Real* values, std::size_t n, std::size_t position,
                                         Scratch& scratch) {
  using Key = typename KeyOf<Real>::Key;
  const Neuron& own = neurons_[neuron];
  const Code* cells = reinterpret_cast<const Code*>(cells_.get()) + neuron * n_cells_;
  Range<Real>* ranges = reinterpret_cast<Range<Real>*>(bounds_.get()) + neuron * n_partitions_;
  const typename Kernel<Real, Code>::Table table{
      own.base,
      own.scale,
      static_cast<std::int32_t>(n_cells_ - 1),
      own.steps,
      bits_,
      cells,
      reinterpret_cast<const Key*>(edge_keys_.get()) + neuron * n_partitions_,
      ranges};
  Code* codes = reinterpret_cast<Code*>(scratch.codes);
  const std::size_t n_outside = Kernel<Real, Code>::encode(values, n, table, scratch.keys, codes, scratch.positions);
  for (std::size_t i = 0; i < n_outside; ++i) {
    const std::size_t at = scratch.positions[i];
    const std::size_t code = codes[at];
    const Key key = scratch.keys[at];
    if (code == n_partitions_ - 1 && own.keeps_maxima) {
      note_top(neuron, real_of_key<Real>(key));
    } else {
      widen_range(ranges[code], key);
    }
  }

  const RowGroup& group = groups_.group_of(position);
  pack_at(bits_, codes, n, position % groups_.row_group(), group.bytes.get() + neuron * group.row_bytes);
}

template <class Real>
template <class Code>
void SegmentEncoder<Real>::append_block(const std::vector<const Real*>& rows, std::size_t block, Scratch& scratch) {
  const std::size_t begin = block * kBlockNeurons;
  const std::size_t width = std::min(kBlockNeurons, groups_.n_neurons() - begin);
  const std::size_t first = groups_.n_appended();
  const std::size_t row_group = groups_.row_group();
  for (std::size_t done = 0; done < rows.size();) {
    const std::size_t position = first + done;
    const std::size_t place = position % row_group;
    // Chunks end on whole bytes of packed codes wherever they can.
    const std::size_t n = std::min({kBlockRows - place % 8, rows.size() - done, row_group - place});
    point_to_block(rows.data() + done, n, begin, scratch.rows);
    transpose_block(scratch.rows, n, width, kBlockStride, scratch.columns);
    const bool ends_group = place + n == row_group || position + n == groups_.n_inputs();
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t neuron = begin + c;
      if (c + 1 < width) prefetch(neuron + 1);
      encode_column<Code>(neuron, scratch.columns + c * kBlockStride, n, position, scratch);
      if (ends_group && maxima_cap_ > 0) {
        ends_[neuron * groups_.n_groups() + position / row_group] = neurons_[neuron].n_maxima;
      }
    }
    done += n;
  }
}

template <class Real>
void SegmentEncoder<Real>::append(const Batch<Real>& batch, int threads) {
  if (finished_) throw std::invalid_argument("append after finish: start a new SegmentEncoder for the next segment");
  const std::vector<const Real*> rows = checked_rows(batch, groups_.n_neurons(), groups_.n_left(), threads);
  groups_.reserve(batch.n);
  const std::size_t n_blocks = (groups_.n_neurons() + kBlockNeurons - 1) / kBlockNeurons;
  const std::size_t n_tasks = (n_blocks + kBlocksPerTask - 1) / kBlocksPerTask;
  const std::size_t n_threads = threads_for(batch.n * groups_.n_neurons(), kValuesPerThread, threads);
  std::vector<Scratch> scratch(std::max<std::size_t>(1, std::min(n_tasks, n_threads)));
  parallel_for(n_tasks, static_cast<int>(scratch.size()), [&](std::size_t task, std::size_t worker) {
    for (std::size_t block = task * kBlocksPerTask; block < std::min(n_blocks, (task + 1) * kBlocksPerTask); ++block) {
      if (bits_ <= 8) {
        append_block<std::uint8_t>(rows, block, scratch[worker]);
      } else {
        append_block<std::uint16_t>(rows, block, scratch[worker]);
      }
    }
  });
  groups_.advance(batch.n);
}

template <class Real>
void SegmentEncoder<Real>::finish() {
  if (finished_) throw std::invalid_argument("finish was called before: its result can be taken once");
  if (groups_.n_left() > 0) {
    throw std::invalid_argument("finish needs all " + std::to_string(groups_.n_inputs()) +
                                " inputs of the segment, got " + std::to_string(groups_.n_appended()));
  }
  finished_ = true;
  static_assert(sizeof(Range<Real>) == 2 * sizeof(Real), "a range turns into its two values in place");
  std::uint8_t* bytes = bounds_.get();
  for (std::size_t j = 0; j < neurons_.size(); ++j) {
    for (std::size_t p = 0; p < n_partitions_; ++p) {
      std::uint8_t* at = bytes + (j * n_partitions_ + p) * sizeof(Range<Real>);
      Range<Real> range;
      std::memcpy(&range, at, sizeof range);
      Real pair[2] = {std::numeric_limits<Real>::infinity(), -std::numeric_limits<Real>::infinity()};
      if (range.span != 0) {
        pair[0] = real_of_key<Real>(range.low);
        pair[1] = real_of_key<Real>(range.low + (range.span - 1));
      } else if (p == n_partitions_ - 1 && neurons_[j].keeps_maxima) {
        pair[0] = neurons_[j].top_low;
        pair[1] = neurons_[j].top_high;
      }
      std::memcpy(at, pair, sizeof pair);
    }
  }
}

template <class Real>
std::size_t SegmentEncoder<Real>::n_maxima() const noexcept {
  std::size_t total = 0;
  for (const Neuron& own : neurons_) total += own.n_maxima;
  return total;
}

template <class Real>
void SegmentEncoder<Real>::write_maxima(std::int64_t* starts, Real* maxima) const {
  const std::size_t n_groups = groups_.n_groups();
  std::int64_t at = 0;
  for (std::size_t j = 0; j < neurons_.size(); ++j) {
    const Neuron& own = neurons_[j];
    std::int64_t* out = starts + j * (n_groups + 1);
    out[0] = at;
    for (std::size_t g = 0; g < n_groups; ++g) {
      out[g + 1] = at + (own.n_maxima > 0 ? static_cast<std::int64_t>(ends_[j * n_groups + g]) : 0);
    }
    if (own.n_maxima == 0) continue;
    std::memcpy(maxima + at, slab_.get() + j * maxima_cap_ * sizeof(Real), own.n_maxima * sizeof(Real));
    at += own.n_maxima;
  }
}

template class SegmentEncoder<float>;
template class SegmentEncoder<double>;

}  // namespace nadb::activation
