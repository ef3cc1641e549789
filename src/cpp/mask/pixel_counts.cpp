// Exact counts; see pixel_counts.h. Pixels of nodata are taken off afterwards, in a second pass that is only made where
// the range holds nodata: ranges open to its side.
#include "mask/pixel_counts.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "kernels/dispatch.h"

namespace nadb::mask {

namespace {

constexpr std::size_t kBytesPerThread = std::size_t{1} << 19;  // fewer are done sooner than a thread is started
constexpr std::size_t kMarked = 4096;                          // pixels whose marks are held at a time

std::size_t pixels_of(const Rows& rows, std::size_t i) {
  return static_cast<std::size_t>(rows.widths[i]) * static_cast<std::size_t>(rows.n_rows[i]);
}

bool holds(const KeyRange32& range, std::int32_t key) { return key >= range.first && key <= range.last; }

}  // namespace

std::optional<BadPixel> check_pixels(PixelType type, const void* const* masks, const Shape* shapes, std::size_t n,
                                     const KeyRange32& range, std::optional<std::int32_t> nodata, int threads,
                                     const Poll& poll) {
  const KernelTable& kernels = active_kernels();
  const auto first = static_cast<std::int32_t>(range.first);
  const auto last = static_cast<std::int32_t>(range.last);
  std::size_t n_bytes = 0;
  const auto size_of = [&](std::size_t m) {
    return static_cast<std::size_t>(shapes[m].height) * static_cast<std::size_t>(shapes[m].width);
  };
  for (std::size_t m = 0; m < n; ++m) n_bytes += size_of(m) * pixel_bytes(type) + 64;
  std::atomic<std::size_t> first_bad{n};
  std::mutex mutex;
  std::size_t place = 0;
  const auto body = [&](std::size_t m, std::size_t) {
    if (m >= first_bad.load(std::memory_order_relaxed)) return;
    const std::size_t size = size_of(m);
    const std::size_t found = kernels.find_outside[type](masks[m], size, first, last, nodata.value_or(first));
    if (found == size) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (m >= first_bad.load(std::memory_order_relaxed)) return;
    first_bad.store(m, std::memory_order_relaxed);
    place = found;
  };
  parallel_for(n, static_cast<int>(threads_for(n_bytes, kBytesPerThread, threads)), body, poll);
  const std::size_t bad = first_bad.load();
  if (bad == n) return std::nullopt;
  const auto width = static_cast<std::size_t>(shapes[bad].width);
  const auto* bytes = static_cast<const std::uint8_t*>(masks[bad]);
  return BadPixel{bad, static_cast<std::int64_t>(place / width), static_cast<std::int64_t>(place % width),
                  value_of_pixel(type, bytes + place * pixel_bytes(type))};
}

void count_pixels(PixelType type, const Rows& rows, const KeyRange32& range, std::optional<std::int32_t> nodata,
                  std::int64_t* out, int threads, const Poll& poll) {
  if (range.empty()) {
    std::fill(out, out + rows.n, 0);
    return;
  }
  const auto count_range = active_kernels().count_range[type];
  const auto first = static_cast<std::int32_t>(range.first);
  const auto last = static_cast<std::int32_t>(range.last);
  const bool takes_nodata = nodata && holds(range, *nodata);
  const std::size_t size = pixel_bytes(type);
  std::size_t n_bytes = 0;
  for (std::size_t i = 0; i < rows.n; ++i) n_bytes += pixels_of(rows, i) * size + 64;
  // Neighbours share tasks, so that small boxes are worth handing out.
  const std::size_t n_threads = threads_for(n_bytes, kBytesPerThread, threads);
  const std::size_t per_task = std::max<std::size_t>(1, std::min<std::size_t>(64, rows.n / (8 * n_threads)));
  const auto body = [&](std::size_t task, std::size_t) {
    const std::size_t end = std::min(rows.n, (task + 1) * per_task);
    for (std::size_t i = task * per_task; i < end; ++i) {
      const std::size_t stride = static_cast<std::size_t>(rows.widths[i]) * size;
      const auto* at = static_cast<const std::uint8_t*>(rows.pixels[i]) + static_cast<std::size_t>(rows.x0[i]) * size;
      const auto width = static_cast<std::size_t>(std::max(0, rows.x1[i] - rows.x0[i]));
      const auto n_rows = static_cast<std::size_t>(rows.n_rows[i]);
      std::uint64_t count = count_range(at, stride, width, n_rows, first, last);
      if (takes_nodata) count -= count_range(at, stride, width, n_rows, *nodata, *nodata);
      out[i] = static_cast<std::int64_t>(count);
    }
  };
  parallel_for((rows.n + per_task - 1) / per_task, static_cast<int>(n_threads), body, poll);
}

void count_joint(const Rows& rows, const std::int64_t* starts, const Member* members, std::int64_t* all,
                 std::int64_t* any, int threads, const Poll& poll) {
  const KernelTable& kernels = active_kernels();
  std::size_t n_bytes = 0;
  for (std::size_t i = 0; i < rows.n; ++i) {
    n_bytes += (pixels_of(rows, i) * 4 + 64) * static_cast<std::size_t>(starts[i + 1] - starts[i]);
  }
  const auto body = [&](std::size_t i, std::size_t) {
    std::uint8_t in_all[kMarked];
    std::uint8_t in_any[kMarked];
    const auto row_width = static_cast<std::size_t>(rows.widths[i]);
    auto width = static_cast<std::size_t>(std::max(0, rows.x1[i] - rows.x0[i]));
    auto n_rows = static_cast<std::size_t>(rows.n_rows[i]);
    if (width == row_width) {  // whole rows: one long one
      width *= n_rows;
      n_rows = std::min<std::size_t>(1, n_rows);
    }
    std::uint64_t n_all = 0;
    std::uint64_t n_any = 0;
    // As many rows at a time as the marks have room for, or a part of one.
    const std::size_t part = std::min(width, kMarked);
    const std::size_t step = part == 0 ? 1 : width > kMarked ? 1 : kMarked / part;
    for (std::size_t r = 0; r < n_rows && part != 0; r += step) {
      for (std::size_t begin = 0; begin < width; begin += part) {
        const std::size_t now = std::min(step, n_rows - r);
        const std::size_t n = std::min(part, width - begin);
        std::fill(in_all, in_all + now * n, std::uint8_t{1});
        std::fill(in_any, in_any + now * n, std::uint8_t{0});
        for (std::int64_t k = starts[i]; k < starts[i + 1]; ++k) {
          const Member& member = members[k];
          if (member.range.empty()) {
            std::fill(in_all, in_all + now * n, std::uint8_t{0});
            continue;
          }
          const std::size_t size = pixel_bytes(member.type);
          const auto* pixels = static_cast<const std::uint8_t*>(rows.pixels[k]);
          for (std::size_t row = 0; row < now; ++row) {
            const std::size_t place = (r + row) * row_width + static_cast<std::size_t>(rows.x0[i]) + begin;
            kernels.mark_range[member.type](pixels + place * size, n, static_cast<std::int32_t>(member.range.first),
                                            static_cast<std::int32_t>(member.range.last), member.nodata.has_value(),
                                            member.nodata.value_or(0), in_all + row * n, in_any + row * n);
          }
        }
        // 1 as an 8-bit pixel has the key -127.
        n_all += kernels.count_range[kPixelU8](in_all, now * n, now * n, 1, -127, -127);
        n_any += kernels.count_range[kPixelU8](in_any, now * n, now * n, 1, -127, -127);
      }
    }
    all[i] = static_cast<std::int64_t>(n_all);
    any[i] = static_cast<std::int64_t>(n_any);
  };
  parallel_for(rows.n, static_cast<int>(threads_for(n_bytes, kBytesPerThread, threads)), body, poll);
}

}  // namespace nadb::mask
