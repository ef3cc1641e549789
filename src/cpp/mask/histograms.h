// Builds the histogram index of masks: per edge, mask and cell the number of pixels at or above the edge, as one byte
// rounded up. Implements design.md, section 5, "Index".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "mask/grid.h"
#include "mask/pixel_values.h"
#include "parallel_for.h"

namespace nadb::mask {

// The edges of a collection as keys, with what `nodata` adds.
class HistogramEdges {
 public:
  // `edges`: ascending, exact values of the type (checked by the caller). `nodata`: the key of what is never counted.
  HistogramEdges(PixelType type, const std::vector<std::int32_t>& edges, std::optional<std::int32_t> nodata);

  // A row that `counted` need not hold: of all pixels, or of none.
  static constexpr std::int32_t kEvery = -1;
  static constexpr std::int32_t kNone = -2;

  PixelType type;
  std::vector<std::int32_t> counted;  // edges for the kernel count_columns, which takes none at the least key
  std::vector<std::int32_t> rows;     // of each edge: its place in `counted`, kEvery or kNone
  // Integer pixels of nodata are counted too and taken off the first `n_with_nodata` edges, those at or below nodata:
  // the pixels in row `at_nodata` but not in `above_nodata`. Floats of nodata are dropped with the NaNs.
  std::size_t n_with_nodata = 0;
  std::int32_t at_nodata = kNone;
  std::int32_t above_nodata = kNone;
  std::int32_t exempt;  // for the kernel pixel_keys

 private:
  std::int32_t add_row(std::int64_t key);
};

// masks[m]: shapes[m] pixels, whole rows, no alignment needed. out: n_edges x n x grid x grid.
void mask_histograms(const HistogramEdges& edges, const void* const* masks, const Shape* shapes, std::size_t n,
                     std::size_t grid, std::uint8_t* out, int threads, const Poll& poll);

}  // namespace nadb::mask
