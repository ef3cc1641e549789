// The Python object `StoredArray`, shared by the bindings of what reads from it.
#pragma once

#include "python/arrays.h"
#include "storage/stored_array.h"

namespace nadb::python {

struct StoredArrayObject {
  StoredArrayObject(int descriptor, std::int64_t data_at, std::size_t n_bytes, std::size_t block_bytes,
                    Array<std::uint32_t> crcs)
      : checksums(std::move(crcs)), array(descriptor, data_at, n_bytes, block_bytes, checksums.data()) {}

  Array<std::uint32_t> checksums;
  storage::StoredArray array;
};

}  // namespace nadb::python
