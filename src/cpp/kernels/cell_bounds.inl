// Bounds of a count from the rows of a histogram index (design.md, section 5, "Bounds"). A byte q of a cell of area A
// says that N, the pixels at or above the row's edge, lies in [max(0, q * s - s + 1), min(A, q * s)]. With the
// intervals of N for `low` and `high`, the pixels in range are lo = max(0, Nlow - Nhigh') to hi = max(0, Nlow' -
// Nhigh); a box that overlaps the cell in o pixels holds max(0, lo - (A - o)) to min(hi, o) of them.
//
// Lanes are 16 bits where every q * s fits, else 32; sums are exact in 32 bits, masks having at most 2^30
// pixels.

template <class Lane>
inline Lane least_of(Lane a, Lane b) noexcept {
  return a < b ? a : b;
}

template <class Lane>
inline Lane above_zero(Lane a) noexcept {
  return a > 0 ? a : Lane(0);
}

// N at the end of its interval that `slack` names: 0 or s - 1 below it.
template <class Lane>
inline Lane pixels_at_or_above(uint8_t q, Lane scale, Lane slack, Lane area) noexcept {
  return least_of<Lane>(above_zero<Lane>(static_cast<Lane>(static_cast<Lane>(q * scale) - slack)), area);
}

// One mask's cells as bound_masks and bound_cells see them.
template <class Lane>
struct OneMask {
  OneMask(const CellRows* rows, const MaskCells* cells, size_t m) noexcept
      : scale(static_cast<Lane>(cells->scales[m * cells->scale_stride])),
        areas(static_cast<const Lane*>(cells->areas) + m * cells->area_stride) {
    for (int r = 0; r < kCellRowCount; ++r) {
      row[r] = rows->rows[r] + m * rows->strides[r];
      slack[r] = rows->greatest[r] ? Lane(0) : static_cast<Lane>(scale - 1);
    }
  }

  template <bool kLow, bool kHigh>
  inline void bounds(size_t c, Lane* lo, Lane* hi) const noexcept {
    const Lane area = areas[c];
    Lane low_lower = area;
    Lane low_upper = area;
    if (kLow) {
      low_lower = pixels_at_or_above<Lane>(row[kLowLower][c], scale, slack[kLowLower], area);
      low_upper = pixels_at_or_above<Lane>(row[kLowUpper][c], scale, slack[kLowUpper], area);
    }
    Lane high_lower = 0;
    Lane high_upper = 0;
    if (kHigh) {
      high_lower = pixels_at_or_above<Lane>(row[kHighLower][c], scale, slack[kHighLower], area);
      high_upper = pixels_at_or_above<Lane>(row[kHighUpper][c], scale, slack[kHighUpper], area);
    }
    *lo = above_zero<Lane>(static_cast<Lane>(low_lower - high_upper));
    *hi = above_zero<Lane>(static_cast<Lane>(low_upper - high_lower));
  }

  Lane scale;
  Lane slack[kCellRowCount];
  const Lane* areas;
  const uint8_t* row[kCellRowCount];
};

template <class Lane, bool kLow, bool kHigh>
void bound_some_masks(const CellRows* rows, const MaskCells* cells, size_t n, double* lower, double* upper) noexcept {
  const size_t n_cells = cells->n_cells;
  for (size_t m = 0; m < n; ++m) {
    const OneMask<Lane> mask(rows, cells, m);
    const Lane* overlaps = static_cast<const Lane*>(cells->overlaps) + m * cells->overlap_stride;
    int32_t least = 0;
    int32_t most = 0;
    for (size_t c = 0; c < n_cells; ++c) {
      Lane lo;
      Lane hi;
      mask.template bounds<kLow, kHigh>(c, &lo, &hi);
      const Lane overlap = overlaps[c];
      least += above_zero<Lane>(static_cast<Lane>(lo - static_cast<Lane>(mask.areas[c] - overlap)));
      most += least_of<Lane>(hi, overlap);
    }
    lower[m] = static_cast<double>(least);
    upper[m] = static_cast<double>(most);
  }
}

template <class Lane>
void bound_masks(const CellRows* rows, const MaskCells* cells, size_t n, double* lower, double* upper) noexcept {
  if (rows->any_low) {
    if (rows->any_high) {
      bound_some_masks<Lane, true, true>(rows, cells, n, lower, upper);
    } else {
      bound_some_masks<Lane, true, false>(rows, cells, n, lower, upper);
    }
  } else if (rows->any_high) {
    bound_some_masks<Lane, false, true>(rows, cells, n, lower, upper);
  } else {
    bound_some_masks<Lane, false, false>(rows, cells, n, lower, upper);
  }
}

template <class Lane>
void bound_cells(const CellRows* rows, const MaskCells* cells, size_t n, int32_t* lower, int32_t* upper) noexcept {
  const size_t n_cells = cells->n_cells;
  for (size_t m = 0; m < n; ++m) {
    const OneMask<Lane> mask(rows, cells, m);
    for (size_t c = 0; c < n_cells; ++c) {
      Lane lo;
      Lane hi;
      if (rows->any_low && rows->any_high) {
        mask.template bounds<true, true>(c, &lo, &hi);
      } else if (rows->any_low) {
        mask.template bounds<true, false>(c, &lo, &hi);
      } else if (rows->any_high) {
        mask.template bounds<false, true>(c, &lo, &hi);
      } else {
        mask.template bounds<false, false>(c, &lo, &hi);
      }
      lower[m * n_cells + c] = lo;
      upper[m * n_cells + c] = hi;
    }
  }
}

// Pixels that [begin, end) has in common with each of `grid` consecutive ranges.
template <class Lane>
inline void overlap_axis(Lane begin, Lane end, size_t grid, const Lane* starts, Lane* out) noexcept {
  for (size_t i = 0; i < grid; ++i) {
    const Lane from = starts[i] > begin ? starts[i] : begin;
    const Lane to = starts[i + 1] < end ? starts[i + 1] : end;
    out[i] = above_zero<Lane>(static_cast<Lane>(to - from));
  }
}

inline int32_t clip(int32_t value, int32_t most) noexcept { return value < 0 ? 0 : value > most ? most : value; }

constexpr size_t kMostGrid = 256;

// kGrid: the grid where it is known, so that its loops have no ends to look after; 0 for any.
template <class Lane, size_t kGrid>
void overlap_some_cells(const int32_t* boxes, size_t n, size_t any_grid, const int32_t* y_starts,
                        const int32_t* x_starts, Lane* overlaps) noexcept {
  constexpr size_t kRoom = kGrid == 0 ? kMostGrid : kGrid;
  const size_t grid = kGrid == 0 ? any_grid : kGrid;
  const int32_t height = y_starts[grid];
  const int32_t width = x_starts[grid];
  Lane ys[kRoom + 1];
  Lane xs[kRoom + 1];
  for (size_t i = 0; i <= grid; ++i) {
    ys[i] = static_cast<Lane>(y_starts[i]);
    xs[i] = static_cast<Lane>(x_starts[i]);
  }
  Lane rows[kRoom];
  Lane columns[kRoom];
  for (size_t b = 0; b < n; ++b, boxes += 4, overlaps += grid * grid) {
    overlap_axis<Lane>(static_cast<Lane>(clip(boxes[0], width)), static_cast<Lane>(clip(boxes[2], width)), grid, xs,
                       columns);
    overlap_axis<Lane>(static_cast<Lane>(clip(boxes[1], height)), static_cast<Lane>(clip(boxes[3], height)), grid, ys,
                       rows);
    for (size_t i = 0; i < grid; ++i) {
      for (size_t j = 0; j < grid; ++j) overlaps[i * grid + j] = static_cast<Lane>(rows[i] * columns[j]);
    }
  }
}

template <class Lane>
void overlap_cells(const int32_t* boxes, size_t n, size_t grid, const int32_t* y_starts, const int32_t* x_starts,
                   void* overlaps) noexcept {
  Lane* out = static_cast<Lane*>(overlaps);
  if (grid == 8) {
    overlap_some_cells<Lane, 8>(boxes, n, grid, y_starts, x_starts, out);
  } else if (grid == 16) {
    overlap_some_cells<Lane, 16>(boxes, n, grid, y_starts, x_starts, out);
  } else {
    overlap_some_cells<Lane, 0>(boxes, n, grid, y_starts, x_starts, out);
  }
}
