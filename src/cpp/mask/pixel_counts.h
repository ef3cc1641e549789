// Exact counts of pixels read from storage, and the check of pixels on append. Implements design.md, section 5,
// "Verify" and "Groups".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "mask/grid.h"
#include "mask/pixel_values.h"
#include "parallel_for.h"

namespace nadb::mask {

struct BadPixel {
  std::size_t mask;
  std::int64_t y;
  std::int64_t x;
  double value;
};

// The first pixel, by mask, row and column, that is neither in the range nor nodata.
std::optional<BadPixel> check_pixels(PixelType type, const void* const* masks, const Shape* shapes, std::size_t n,
                                     const KeyRange32& range, std::optional<std::int32_t> nodata, int threads,
                                     const Poll& poll);

// Whole rows of some masks, and the columns [x0[i], x1[i]) that count.
struct Rows {
  std::size_t n;
  const void* const* pixels;
  const std::int32_t* widths;
  const std::int32_t* x0;
  const std::int32_t* x1;
  const std::int32_t* n_rows;
};

// out[i]: pixels of rows i in the range and not nodata.
void count_pixels(PixelType type, const Rows& rows, const KeyRange32& range, std::optional<std::int32_t> nodata,
                  std::int64_t* out, int threads, const Poll& poll);

// One member of a group: what it holds and what is looked for in it.
struct Member {
  PixelType type;
  KeyRange32 range;
  std::optional<std::int32_t> nodata;
};

// rows.n groups; group i has the members [starts[i], starts[i + 1]), at least one, whose pixels lie at the same places
// of rows.pixels. all, any: pixels where every, or some, member is in its range and not nodata.
void count_joint(const Rows& rows, const std::int64_t* starts, const Member* members, std::int64_t* all,
                 std::int64_t* any, int threads, const Poll& poll);

}  // namespace nadb::mask
