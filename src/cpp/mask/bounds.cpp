// Bounds of counts; see bounds.h. Masks go by blocks whose areas and overlaps stay in the first-level cache; what is
// the same for all masks is computed once.
#include "mask/bounds.h"

#include <algorithm>
#include <vector>

#include "kernels/dispatch.h"

namespace nadb::mask {

namespace {

constexpr std::size_t kCellsPerThread = std::size_t{1} << 20;  // fewer are done sooner than a thread is started
constexpr std::size_t kCellsPerBlock = std::size_t{1} << 13;
constexpr std::size_t kBlocksPerTask = 16;
constexpr std::int64_t kMost16 = 32000;  // pixels of a cell, so that one step more still fits in 16 bits

bool fits_16(const Shape& shape, std::size_t grid) {
  return largest_cell(shape, grid) <= kMost16 && shape.height <= INT16_MAX && shape.width <= INT16_MAX;
}

// Where the cells of masks of one shape lie.
struct Cells {
  explicit Cells(std::size_t grid) : y_starts(grid + 1), x_starts(grid + 1) {}
  void set(const Shape& new_shape, std::size_t grid) {
    if (new_shape == shape) return;
    shape = new_shape;
    step = count_step(shape, grid);
    cell_starts(shape.height, grid, y_starts.data());
    cell_starts(shape.width, grid, x_starts.data());
  }
  Shape shape{-1, -1};
  std::int32_t step = 1;
  std::vector<std::int32_t> y_starts;
  std::vector<std::int32_t> x_starts;
};

// The rows as a kernel takes them. Constant ones are bytes too: the greatest N of 255 is the cell's area, whatever it
// is, and the least N of 0 is none.
class KernelRows {
 public:
  KernelRows(const IndexRows& rows, std::size_t n_cells) : zeros_(n_cells, 0), ones_(n_cells, 255), n_cells_(n_cells) {
    const auto none = [](const IndexRow& row) { return row.kind == IndexRow::kNone; };
    const auto every = [](const IndexRow& row) { return row.kind == IndexRow::kEvery; };
    rows_.any_low = !(every(rows.low_lower) && every(rows.low_upper));
    rows_.any_high = !(none(rows.high_lower) && none(rows.high_upper));
    set(kLowUpper, rows.low_upper, true);
    set(kLowLower, rows.low_lower, false);
    set(kHighUpper, rows.high_upper, true);
    set(kHighLower, rows.high_lower, false);
  }

  // For masks from `first` on, cells from `cell` on.
  CellRows from(std::size_t first, std::size_t cell) const {
    CellRows rows = rows_;
    for (int r = 0; r < kCellRowCount; ++r) rows.rows[r] += first * rows.strides[r] + cell;
    return rows;
  }

 private:
  void set(CellRow which, const IndexRow& row, bool greatest) {
    const bool stored = row.kind == IndexRow::kStored;
    const bool every = row.kind == IndexRow::kEvery;
    rows_.rows[which] = stored ? row.bytes : every ? ones_.data() : zeros_.data();
    rows_.strides[which] = stored ? n_cells_ : 0;
    rows_.greatest[which] = stored ? greatest : every;
  }

  std::vector<std::uint8_t> zeros_;
  std::vector<std::uint8_t> ones_;
  std::size_t n_cells_;
  CellRows rows_{};
};

// Areas, overlaps and steps of a block of masks, in lanes of the kernel.
template <class Lane>
class BlockCells {
 public:
  BlockCells(const Masks& masks, const Box* boxes, bool one_box)
      : masks_(masks),
        boxes_(boxes),
        one_box_(one_box),
        n_cells_(masks.grid * masks.grid),
        cells_(masks.grid),
        kernels_(active_kernels()) {
    if (!masks.one_shape || masks.n == 0) return;
    cells_.set(masks.shapes[0], masks.grid);
    areas_.resize(n_cells_);
    overlap_whole(areas_.data());
    steps_.assign(1, cells_.step);
    if (boxes == nullptr || !one_box) return;
    overlaps_.resize(n_cells_);
    overlap(boxes, 1, overlaps_.data());
    // Rows of cells outside the box hold nothing.
    const auto in_box = [](Lane pixels) { return pixels != 0; };
    const auto begin = std::find_if(overlaps_.begin(), overlaps_.end(), in_box) - overlaps_.begin();
    const auto rest = std::find_if(overlaps_.rbegin(), overlaps_.rend(), in_box) - overlaps_.rbegin();
    first_cell_ = static_cast<std::size_t>(begin);
    used_cells_ = first_cell_ == n_cells_ ? 0 : n_cells_ - static_cast<std::size_t>(rest) - first_cell_;
  }

  std::size_t first_cell() const { return first_cell_; }

  MaskCells block(std::size_t first, std::size_t n) {
    if (!masks_.one_shape) {
      fill_shapes(first, n);
    } else if (boxes_ != nullptr && !one_box_) {
      grow(overlaps_, n * n_cells_);
      overlap(boxes_ + first, n, overlaps_.data());
    }
    MaskCells cells{};
    cells.n_cells = one_box_ && masks_.one_shape && boxes_ != nullptr ? used_cells_ : n_cells_;
    cells.areas = areas_.data() + first_cell_;
    cells.area_stride = masks_.one_shape ? 0 : n_cells_;
    cells.overlaps = overlaps_.data() + first_cell_;
    cells.overlap_stride = masks_.one_shape && one_box_ ? 0 : n_cells_;
    cells.scales = steps_.data();
    cells.scale_stride = masks_.one_shape ? 0 : 1;
    return cells;
  }

 private:
  template <class T>
  static void grow(std::vector<T>& values, std::size_t n) {
    if (values.size() < n) values.resize(n);
  }

  void overlap(const Box* boxes, std::size_t n, Lane* out) const {
    constexpr int kLane = sizeof(Lane) == 2 ? 0 : 1;
    kernels_.overlap_cells[kLane](&boxes->x0, n, masks_.grid, cells_.y_starts.data(), cells_.x_starts.data(), out);
  }

  // The area of a cell is what it has in common with the whole mask.
  void overlap_whole(Lane* out) const {
    const Box whole{0, 0, cells_.shape.width, cells_.shape.height};
    overlap(&whole, 1, out);
  }

  void fill_shapes(std::size_t first, std::size_t n) {
    grow(areas_, n * n_cells_);
    grow(steps_, n);
    if (boxes_ != nullptr) grow(overlaps_, n * n_cells_);
    for (std::size_t m = 0; m < n; ++m) {
      cells_.set(masks_.shapes[first + m], masks_.grid);
      overlap_whole(areas_.data() + m * n_cells_);
      steps_[m] = cells_.step;
      if (boxes_ != nullptr) overlap(boxes_ + (one_box_ ? 0 : first + m), 1, overlaps_.data() + m * n_cells_);
    }
  }

  const Masks& masks_;
  const Box* boxes_;
  bool one_box_;
  std::size_t n_cells_;
  std::size_t first_cell_ = 0;
  std::size_t used_cells_ = 0;
  Cells cells_;
  const KernelTable& kernels_;
  std::vector<Lane> areas_;
  std::vector<Lane> overlaps_;
  std::vector<std::int32_t> steps_;
};

// Calls body(BlockCells, first mask, number of masks) for every block.
template <class Lane, class Body>
void for_blocks(const Masks& masks, const Box* boxes, bool one_box, int threads, const Poll& poll, Body&& body) {
  const std::size_t n_cells = masks.grid * masks.grid;
  const std::size_t per_block = std::max<std::size_t>(1, kCellsPerBlock / n_cells);
  const std::size_t per_task = per_block * kBlocksPerTask;
  const std::size_t n_tasks = (masks.n + per_task - 1) / per_task;
  const std::size_t n_threads =
      std::min(threads_for(masks.n * n_cells, kCellsPerThread, threads), std::max<std::size_t>(1, n_tasks));
  std::vector<BlockCells<Lane>> workers;
  workers.reserve(n_threads);
  for (std::size_t w = 0; w < n_threads; ++w) workers.emplace_back(masks, boxes, one_box);
  const auto task_body = [&](std::size_t task, std::size_t worker) {
    const std::size_t end = std::min(masks.n, (task + 1) * per_task);
    for (std::size_t first = task * per_task; first < end; first += per_block) {
      body(workers[worker], first, std::min(per_block, end - first));
    }
  };
  parallel_for(n_tasks, static_cast<int>(n_threads), task_body, poll);
}

bool all_fit_16(const Masks& masks) {
  const std::size_t n_shapes = masks.one_shape ? std::min<std::size_t>(1, masks.n) : masks.n;
  return std::all_of(masks.shapes, masks.shapes + n_shapes,
                     [&](const Shape& shape) { return fits_16(shape, masks.grid); });
}

template <class Lane>
void count_bounds_in(const Masks& masks, const KernelRows& rows, const Box* boxes, bool one_box, double* lower,
                     double* upper, int threads, const Poll& poll) {
  constexpr int kLane = sizeof(Lane) == 2 ? 0 : 1;
  const KernelTable& kernels = active_kernels();
  for_blocks<Lane>(masks, boxes, one_box, threads, poll,
                   [&](BlockCells<Lane>& cells, std::size_t first, std::size_t n) {
                     const CellRows block_rows = rows.from(first, cells.first_cell());
                     const MaskCells block = cells.block(first, n);
                     kernels.bound_masks[kLane](&block_rows, &block, n, lower + first, upper + first);
                   });
}

template <class Lane>
void cell_bounds_in(const Masks& masks, const KernelRows& rows, std::int32_t* lower, std::int32_t* upper, int threads,
                    const Poll& poll) {
  constexpr int kLane = sizeof(Lane) == 2 ? 0 : 1;
  const std::size_t n_cells = masks.grid * masks.grid;
  const KernelTable& kernels = active_kernels();
  for_blocks<Lane>(masks, nullptr, true, threads, poll, [&](BlockCells<Lane>& cells, std::size_t first, std::size_t n) {
    const CellRows block_rows = rows.from(first, 0);
    const MaskCells block = cells.block(first, n);
    kernels.bound_cells[kLane](&block_rows, &block, n, lower + first * n_cells, upper + first * n_cells);
  });
}

// A strip is bounded as a mask that has no other cells.
template <class Lane>
void strip_bounds_in(const Masks& masks, const KernelRows& rows, const std::int64_t* positions, std::size_t k,
                     const Box* boxes, bool one_box, double* lower, double* upper) {
  constexpr int kLane = sizeof(Lane) == 2 ? 0 : 1;
  const std::size_t grid = masks.grid;
  const KernelTable& kernels = active_kernels();
  Cells cells(grid);
  std::vector<Lane> areas(grid * grid);
  std::vector<Lane> overlaps(grid * grid);
  const auto overlap = [&](const Box& box, Lane* out) {
    kernels.overlap_cells[kLane](&box.x0, 1, grid, cells.y_starts.data(), cells.x_starts.data(), out);
  };
  for (std::size_t i = 0; i < k; ++i) {
    const auto m = static_cast<std::size_t>(positions[i]);
    const Shape& shape = masks.shapes[masks.one_shape ? 0 : m];
    const bool same_shape = shape == cells.shape;
    if (!same_shape) {
      cells.set(shape, grid);
      overlap(Box{0, 0, shape.width, shape.height}, areas.data());
    }
    if (!same_shape || !one_box) overlap(boxes[one_box ? 0 : i], overlaps.data());
    for (std::size_t strip = 0; strip < grid; ++strip) {
      const CellRows strip_rows = rows.from(m, strip * grid);
      const MaskCells strip_cells{grid, areas.data() + strip * grid, 0, overlaps.data() + strip * grid, 0, &cells.step,
                                  0};
      const std::size_t at = i * grid + strip;
      kernels.bound_masks[kLane](&strip_rows, &strip_cells, 1, lower + at, upper + at);
    }
  }
}

}  // namespace

void strip_bounds(const Masks& masks, const IndexRows& rows, const std::int64_t* positions, std::size_t k,
                  const Box* boxes, bool one_box, double* lower, double* upper) {
  const KernelRows kernel_rows(rows, masks.grid * masks.grid);
  if (all_fit_16(masks)) {
    strip_bounds_in<std::int16_t>(masks, kernel_rows, positions, k, boxes, one_box, lower, upper);
  } else {
    strip_bounds_in<std::int32_t>(masks, kernel_rows, positions, k, boxes, one_box, lower, upper);
  }
}

void count_bounds(const Masks& masks, const IndexRows& rows, const Box* boxes, bool one_box, double* lower,
                  double* upper, int threads, const Poll& poll) {
  const KernelRows kernel_rows(rows, masks.grid * masks.grid);
  if (all_fit_16(masks)) {
    count_bounds_in<std::int16_t>(masks, kernel_rows, boxes, one_box, lower, upper, threads, poll);
  } else {
    count_bounds_in<std::int32_t>(masks, kernel_rows, boxes, one_box, lower, upper, threads, poll);
  }
}

void cell_bounds(const Masks& masks, const IndexRows& rows, std::int32_t* lower, std::int32_t* upper, int threads,
                 const Poll& poll) {
  const KernelRows kernel_rows(rows, masks.grid * masks.grid);
  if (all_fit_16(masks)) {
    cell_bounds_in<std::int16_t>(masks, kernel_rows, lower, upper, threads, poll);
  } else {
    cell_bounds_in<std::int32_t>(masks, kernel_rows, lower, upper, threads, poll);
  }
}

void cell_overlaps(const Masks& masks, const Box* boxes, bool one_box, std::int32_t* areas, std::int32_t* overlaps) {
  const std::size_t n_cells = masks.grid * masks.grid;
  const KernelTable& kernels = active_kernels();
  Cells cells(masks.grid);
  const std::size_t n = masks.one_shape && one_box ? 1 : masks.n;
  for (std::size_t m = 0; m < n; ++m) {
    cells.set(masks.shapes[masks.one_shape ? 0 : m], masks.grid);
    const Box whole{0, 0, cells.shape.width, cells.shape.height};
    kernels.overlap_cells[1](&whole.x0, 1, masks.grid, cells.y_starts.data(), cells.x_starts.data(),
                             areas + m * n_cells);
    const Box& box = boxes[one_box ? 0 : m];
    kernels.overlap_cells[1](&box.x0, 1, masks.grid, cells.y_starts.data(), cells.x_starts.data(),
                             overlaps + m * n_cells);
  }
}

}  // namespace nadb::mask
