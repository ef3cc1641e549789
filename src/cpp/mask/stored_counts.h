// Exact counts of masks that are still in a file: each thread reads a mask's rows, verifies them and counts them while
// they are in its cache. Implements design.md, section 5, "Verify", for regions that are boxes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "mask/pixel_values.h"
#include "parallel_for.h"
#include "storage/stored_array.h"

namespace nadb::mask {

// Pixels of a mask; x0 <= x1 <= width, y0 <= y1 <= height.
struct PixelBox {
  std::int32_t x0;
  std::int32_t y0;
  std::int32_t x1;
  std::int32_t y1;
  bool empty() const noexcept { return x0 == x1 || y0 == y1; }
};

// Masks, and the leaves that count in them: leaf l counts what ranges[l] holds, and is not nodata, in boxes[l * n + i]
// of mask i, which is part of arrays[array_of[i]].
struct StoredMasks {
  PixelType type;
  std::optional<std::int32_t> nodata;
  std::size_t n_arrays;
  const storage::StoredArray* const* arrays;
  std::size_t n;
  const std::int32_t* array_of;
  const std::int64_t* offsets;  // of each mask's first pixel, in bytes; a multiple of the pixel's size
  const std::int32_t* widths;
  std::size_t n_leaves;
  const PixelBox* boxes;
  const KeyRange32* ranges;
};

// out[l * n + i]: the count of leaf l in mask i. Of each mask only the blocks are read that hold rows of its boxes,
// from the first such row to the last; masks whose blocks follow each other in the order given come with one read.
// Blocks hold whole pixels. Throws what StoredArray::read_blocks throws.
void count_stored(const StoredMasks& masks, std::int64_t* out, int threads, const Poll& poll);

}  // namespace nadb::mask
