// Verified reads; see stored_array.h. `pread` alone, as in neuralartifactdb/storage/io: no shared position, no
// memory map.
#include "storage/stored_array.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernels/dispatch.h"

namespace nadb::storage {

namespace {

constexpr std::size_t kBytesPerThread = std::size_t{1} << 20;  // fewer are read sooner than a thread is started
constexpr std::size_t kBlocksPerTask = 8;
constexpr std::size_t kMostBytes = std::size_t{1} << 30;  // Linux moves at most 2 GiB - 4 KiB in one call

}  // namespace

void block_crcs(const std::uint8_t* data, std::size_t n, std::size_t block_bytes, std::uint32_t* out) {
  const auto crc32 = active_kernels().crc32;
  for (; n > block_bytes; data += block_bytes, n -= block_bytes) *out++ = crc32(data, block_bytes, 0);
  if (n != 0) *out = crc32(data, n, 0);
}

std::size_t StoredArray::read_blocks(std::size_t first, std::size_t end, std::uint8_t* target) const {
  const std::size_t begin = first * block_bytes_;
  const std::size_t n = end_of(end - 1) - begin;
  std::size_t done = 0;
  while (done < n) {
    const auto at = static_cast<off_t>(data_at_ + static_cast<std::int64_t>(begin + done));
    const ssize_t got = pread(descriptor_, target + done, std::min(n - done, kMostBytes), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw ReadError(descriptor_, errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes_read_.fetch_add(done, std::memory_order_relaxed);
  if (done < n) throw EndOfFileError(descriptor_, begin + done);
  const auto crc32 = active_kernels().crc32;
  for (std::size_t block = first; block < end; ++block) {
    const std::size_t from = block * block_bytes_;
    const std::uint32_t found = crc32(target + (from - begin), end_of(block) - from, 0);
    if (found != checksums_[block]) throw ChecksumError(descriptor_, block, found);
  }
  return n;
}

bool StoredArray::in_memory(std::size_t block) const noexcept {
#ifdef RWF_NOWAIT
  char byte = 0;
  const iovec target{&byte, 1};
  const auto at = static_cast<off_t>(data_at_ + static_cast<std::int64_t>(block * block_bytes_));
  return preadv2(descriptor_, &target, 1, at, RWF_NOWAIT) >= 0 || errno != EAGAIN;
#else
  static_cast<void>(block);
  return true;
#endif
}

void StoredArray::announce(std::size_t first, std::size_t end) const noexcept {
#ifdef POSIX_FADV_WILLNEED
  if (first >= end) return;
  const std::size_t begin = first * block_bytes_;
  posix_fadvise(descriptor_, static_cast<off_t>(data_at_ + static_cast<std::int64_t>(begin)),
                static_cast<off_t>(end_of(end - 1) - begin), POSIX_FADV_WILLNEED);
#else
  static_cast<void>(first);
  static_cast<void>(end);
#endif
}

void read_many(const StoredArray& array, const std::int64_t* blocks, std::size_t n, std::uint8_t* const* targets,
               int threads, const Poll& poll) {
  if (n == 0) return;
  const auto number = [blocks](std::size_t i) { return static_cast<std::size_t>(blocks[i]); };
  if (!array.in_memory(number(0))) {
    for (std::size_t i = 0; i < n; ++i) array.announce(number(i), number(i) + 1);
  }
  const std::size_t n_threads = threads_for(n * array.block_bytes(), kBytesPerThread, threads);
  const std::size_t n_tasks = (n + kBlocksPerTask - 1) / kBlocksPerTask;
  const auto read = [&](std::size_t task, std::size_t) {
    for (std::size_t i = task * kBlocksPerTask; i < std::min(n, (task + 1) * kBlocksPerTask); ++i) {
      array.read_blocks(number(i), number(i) + 1, targets[i]);
    }
  };
  parallel_for(n_tasks, static_cast<int>(std::min(n_threads, n_tasks)), read, poll);
}

}  // namespace nadb::storage
