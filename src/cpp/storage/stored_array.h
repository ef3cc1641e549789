// An array in a file, read block by verified block past the interpreter: what loops that read as much as they compute
// use. The file is opened, and its size and header are checked, by neuralartifactdb.storage. Implements the checksums
// of design.md, section 6.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "parallel_for.h"

namespace nadb::storage {

// Reading went wrong in the file behind `descriptor`.
struct StorageError : std::runtime_error {
  StorageError(const char* text, int from) : std::runtime_error(text), descriptor(from) {}
  int descriptor;
};

// The operating system refused; `code` is its errno.
struct ReadError : StorageError {
  ReadError(int from, int number) : StorageError("reading failed", from), code(number) {}
  int code;
};

// The file ends after `position` bytes of data.
struct EndOfFileError : StorageError {
  EndOfFileError(int from, std::size_t n) : StorageError("the file is truncated", from), position(n) {}
  std::size_t position;
};

// A block's bytes have the CRC-32 `found`, which is not the one stored.
struct ChecksumError : StorageError {
  ChecksumError(int from, std::size_t number, std::uint32_t crc)
      : StorageError("a block is damaged", from), block(number), found(crc) {}
  std::size_t block;
  std::uint32_t found;
};

// out[i]: CRC-32 of the i-th block of `data`; the last one may be short.
void block_crcs(const std::uint8_t* data, std::size_t n, std::size_t block_bytes, std::uint32_t* out);

// Reads may run in several threads.
class StoredArray {
 public:
  // `descriptor` is borrowed; the data begins `data_at` bytes into its file; there is one checksum per block.
  StoredArray(int descriptor, std::int64_t data_at, std::size_t n_bytes, std::size_t block_bytes,
              const std::uint32_t* checksums) noexcept
      : descriptor_(descriptor),
        data_at_(data_at),
        n_bytes_(n_bytes),
        block_bytes_(block_bytes),
        checksums_(checksums) {}

  std::size_t n_bytes() const noexcept { return n_bytes_; }
  std::size_t block_bytes() const noexcept { return block_bytes_; }
  std::size_t n_blocks() const noexcept { return n_bytes_ / block_bytes_ + (n_bytes_ % block_bytes_ != 0 ? 1 : 0); }
  std::size_t end_of(std::size_t block) const noexcept {
    return block + 1 < n_blocks() ? (block + 1) * block_bytes_ : n_bytes_;
  }
  std::uint64_t bytes_read() const noexcept { return bytes_read_.load(std::memory_order_relaxed); }

  // Fills `target` with blocks [first, end), first < end <= n_blocks(), and verifies them; returns their bytes. Throws
  // the errors above.
  std::size_t read_blocks(std::size_t first, std::size_t end, std::uint8_t* target) const;

  // Whether a block can be read without waiting for the disk, judged by its first byte; true where nobody knows.
  bool in_memory(std::size_t block) const noexcept;
  // Lets the system fetch blocks [first, end) while others are worked on.
  void announce(std::size_t first, std::size_t end) const noexcept;

 private:
  int descriptor_;
  std::int64_t data_at_;
  std::size_t n_bytes_;
  std::size_t block_bytes_;
  const std::uint32_t* checksums_;
  mutable std::atomic<std::uint64_t> bytes_read_{0};
};

// Fills targets[i], which has room for it, with block blocks[i], verified, in several threads where that pays. Throws
// what read_blocks throws.
void read_many(const StoredArray& array, const std::int64_t* blocks, std::size_t n, std::uint8_t* const* targets,
               int threads, const Poll& poll);

}  // namespace nadb::storage
