// Read, verify, count; see stored_counts.h. A mask of any size passes through a buffer that stays in the second-level
// cache, some whole blocks at a time; a box is counted in the part of each row that a strip of blocks holds.
#include "mask/stored_counts.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "kernels/dispatch.h"

namespace nadb::mask {

namespace {

constexpr std::size_t kStripBytes = std::size_t{1} << 18;
constexpr std::size_t kBytesPerThread = std::size_t{1} << 19;  // fewer are done sooner than a thread is started
constexpr std::size_t kBytesPerRead = std::size_t{1} << 12;    // what a read costs beside its bytes
constexpr std::size_t kMostPerTask = 64;

struct Span {
  std::size_t first;
  std::size_t end;
  bool empty() const noexcept { return first == end; }
};

class Counter {
 public:
  Counter(const StoredMasks& masks, std::int64_t* out)
      : masks_(masks),
        out_(out),
        size_(pixel_bytes(masks.type)),
        count_range_(active_kernels().count_range[masks.type]) {}

  // Of the longest strip of any array.
  std::size_t strip_bytes() const {
    std::size_t most = 0;
    for (std::size_t a = 0; a < masks_.n_arrays; ++a) {
      const storage::StoredArray& array = *masks_.arrays[a];
      most = std::max(most, std::min(strip_blocks(array) * array.block_bytes(), array.n_bytes()));
    }
    return most;
  }

  // The bytes that the rows of a mask's boxes take.
  Span bytes_of(std::size_t i) const {
    std::int32_t y0 = 0;
    std::int32_t y1 = 0;
    for (std::size_t leaf = 0; leaf < masks_.n_leaves; ++leaf) {
      const PixelBox& box = masks_.boxes[leaf * masks_.n + i];
      if (box.empty() || masks_.ranges[leaf].empty()) continue;
      y0 = y0 == y1 ? box.y0 : std::min(y0, box.y0);
      y1 = std::max(y1, box.y1);
    }
    const std::size_t row = static_cast<std::size_t>(masks_.widths[i]) * size_;
    const auto offset = static_cast<std::size_t>(masks_.offsets[i]);
    return {offset + static_cast<std::size_t>(y0) * row, offset + static_cast<std::size_t>(y1) * row};
  }

  // Counts masks [begin, end) by way of `buffer`, which has room for strip_bytes().
  void count(std::size_t begin, std::size_t end, std::uint8_t* buffer) const {
    for (std::size_t leaf = 0; leaf < masks_.n_leaves; ++leaf) {
      std::fill(out_ + leaf * masks_.n + begin, out_ + leaf * masks_.n + end, 0);
    }
    while (begin < end) {
      const storage::StoredArray& array = array_of(begin);
      const std::size_t step = strip_blocks(array);
      Span blocks = blocks_of(begin);
      std::size_t after = begin + 1;
      for (; after < end && &array_of(after) == &array; ++after) {
        const Span next = blocks_of(after);
        if (next.first < blocks.first || next.first > blocks.end) break;
        if (std::max(next.end, blocks.end) - blocks.first > step) break;
        blocks.end = std::max(next.end, blocks.end);
      }
      for (std::size_t first = blocks.first; first < blocks.end; first += step) {
        const std::size_t n = array.read_blocks(first, std::min(first + step, blocks.end), buffer);
        const std::size_t at = first * array.block_bytes();
        for (std::size_t i = begin; i < after; ++i) count_strip(i, buffer, {at, at + n});
      }
      begin = after;
    }
  }

  // Where the disk has to be waited for, it is better asked for all masks [begin, end) at once; asking costs as much as
  // reading does where it has not.
  void announce(std::size_t begin, std::size_t end) const {
    std::size_t first = begin;
    while (first < end && blocks_of(first).empty()) ++first;
    if (first + 1 >= end || array_of(first).in_memory(blocks_of(first).first)) return;
    for (std::size_t i = first; i < end; ++i) {
      const Span blocks = blocks_of(i);
      array_of(i).announce(blocks.first, std::min(blocks.end, blocks.first + strip_blocks(array_of(i))));
    }
  }

 private:
  const storage::StoredArray& array_of(std::size_t i) const { return *masks_.arrays[masks_.array_of[i]]; }

  static std::size_t strip_blocks(const storage::StoredArray& array) {
    return std::max<std::size_t>(1, kStripBytes / array.block_bytes());
  }

  Span blocks_of(std::size_t i) const {
    const Span bytes = bytes_of(i);
    const std::size_t block = array_of(i).block_bytes();
    const std::size_t first = bytes.first / block;
    return {first, bytes.empty() ? first : (bytes.end - 1) / block + 1};
  }

  // Adds what mask i's boxes have in the bytes `held` of the array, which lie at `strip`.
  void count_strip(std::size_t i, const std::uint8_t* strip, const Span& held) const {
    const auto width = static_cast<std::size_t>(masks_.widths[i]);
    const auto offset = static_cast<std::size_t>(masks_.offsets[i]);
    if (width == 0 || held.end <= offset) return;
    // Pixels of the mask that are held.
    const std::size_t held_first = held.first <= offset ? 0 : (held.first - offset) / size_;
    const std::size_t held_end = (held.end - offset) / size_;
    for (std::size_t leaf = 0; leaf < masks_.n_leaves; ++leaf) {
      const PixelBox& box = masks_.boxes[leaf * masks_.n + i];
      const KeyRange32& range = masks_.ranges[leaf];
      if (box.empty() || range.empty()) continue;
      std::size_t first = std::max(held_first, static_cast<std::size_t>(box.y0) * width);
      const std::size_t end = std::min(held_end, static_cast<std::size_t>(box.y1) * width);
      if (first >= end) continue;
      const auto x0 = static_cast<std::size_t>(box.x0);
      const auto x1 = static_cast<std::size_t>(box.x1);
      std::uint64_t found = 0;
      const auto count_rows = [&](std::size_t row, std::size_t n_rows, std::size_t from, std::size_t to) {
        if (n_rows == 0 || from >= to) return;
        const std::uint8_t* pixels = strip + (offset + (row * width + from) * size_ - held.first);
        found += count_box(pixels, width * size_, to - from, n_rows, range);
      };
      if (first % width != 0) {  // a row whose beginning was in the strip before
        const std::size_t row = first / width;
        count_rows(row, 1, std::max(x0, first % width), std::min(x1, end - row * width));
        first = (row + 1) * width;
      }
      if (first < end) {
        const std::size_t row = first / width;
        const std::size_t n_rows = (end - first) / width;
        count_rows(row, n_rows, x0, x1);
        count_rows(row + n_rows, 1, x0, std::min(x1, end - (row + n_rows) * width));
      }
      out_[leaf * masks_.n + i] += static_cast<std::int64_t>(found);
    }
  }

  std::uint64_t count_box(const std::uint8_t* pixels, std::size_t stride, std::size_t width, std::size_t n_rows,
                          const KeyRange32& range) const {
    const auto first = static_cast<std::int32_t>(range.first);
    const auto last = static_cast<std::int32_t>(range.last);
    const std::uint64_t all = count_range_(pixels, stride, width, n_rows, first, last);
    if (!masks_.nodata || *masks_.nodata < first || *masks_.nodata > last) return all;
    return all - count_range_(pixels, stride, width, n_rows, *masks_.nodata, *masks_.nodata);
  }

  const StoredMasks& masks_;
  std::int64_t* out_;
  std::size_t size_;
  std::uint64_t (*count_range_)(const void*, size_t, size_t, size_t, int32_t, int32_t);
};

}  // namespace

void count_stored(const StoredMasks& masks, std::int64_t* out, int threads, const Poll& poll) {
  const Counter counter(masks, out);
  std::size_t n_bytes = 0;
  for (std::size_t i = 0; i < masks.n; ++i) {
    const Span bytes = counter.bytes_of(i);
    n_bytes += bytes.end - bytes.first + kBytesPerRead;
  }
  const std::size_t n_threads = threads_for(n_bytes, kBytesPerThread, threads);
  // Neighbours share tasks, so that small masks are worth handing out, and their blocks are read once.
  const std::size_t per_task = std::clamp<std::size_t>(masks.n / (8 * n_threads), 1, kMostPerTask);
  const std::size_t n_tasks = (masks.n + per_task - 1) / per_task;
  const auto end_of = [&](std::size_t task) { return std::min(masks.n, (task + 1) * per_task); };
  std::vector<std::unique_ptr<std::uint8_t[]>> buffers(n_threads);
  std::atomic<std::size_t> announced{0};  // tasks: those that come next, too, so that the disk never has nothing to do
  const auto body = [&](std::size_t task, std::size_t worker) {
    const std::size_t until = std::min(n_tasks, task + 1 + n_threads);
    for (std::size_t next = announced.load(); next < until;) {
      if (!announced.compare_exchange_weak(next, next + 1)) continue;
      counter.announce(next * per_task, end_of(next));
      next = announced.load();
    }
    auto& buffer = buffers[worker];
    if (!buffer) buffer.reset(new std::uint8_t[counter.strip_bytes()]);
    counter.count(task * per_task, end_of(task), buffer.get());
  };
  parallel_for(n_tasks, static_cast<int>(n_threads), body, poll);
}

}  // namespace nadb::mask
