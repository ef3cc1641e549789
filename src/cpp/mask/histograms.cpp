// The histogram index of masks; see histograms.h. A mask goes strip by strip (one row of cells): pixels become keys in
// rows padded to whole vectors, columns are counted, and the counts of a cell's columns are added up.
#include "mask/histograms.h"

#include <algorithm>

#include "kernels/dispatch.h"

namespace nadb::mask {

namespace {

constexpr std::size_t kPixelsPerThread = std::size_t{1} << 17;  // fewer are done sooner than a thread is started
constexpr std::size_t kPixelsPerTask = std::size_t{1} << 16;
constexpr std::size_t kStripBytes = std::size_t{1} << 15;  // keys counted at a time stay in the first-level cache

std::size_t padded_width(std::int32_t width) {
  return (static_cast<std::size_t>(width) + kColumnLanes - 1) / kColumnLanes * kColumnLanes;
}

std::size_t most_rows_of(PixelType type) { return type == kPixelU8 ? 255 : 65535; }

// N / s rounded up, for every N <= 255 s < 2^31, by a multiplication: the error of the factor times N stays below 1 /
// s. Rounded up, a byte of 0 says that there is no pixel: most cells of a saliency map are empty at most edges.
class Divider {
 public:
  explicit Divider(std::int32_t step)
      : factor_((std::uint64_t{1} << 55) / static_cast<std::uint64_t>(step) + 1),
        rounding_(static_cast<std::uint32_t>(step) - 1) {}
  bool by_one() const { return factor_ == (std::uint64_t{1} << 55) + 1; }
  std::uint8_t operator()(std::uint32_t n) const {
    return static_cast<std::uint8_t>(((n + rounding_) * factor_) >> 55);
  }

 private:
  std::uint64_t factor_;
  std::uint32_t rounding_;
};

// The buffers of one thread.
class MaskHistogram {
 public:
  MaskHistogram(const HistogramEdges& edges, std::size_t grid, std::size_t n_masks, std::uint8_t* out)
      : edges_(edges), grid_(grid), edge_stride_(n_masks * grid * grid), out_(out), kernels_(active_kernels()) {
    y_starts_.resize(grid + 1);
    x_starts_.resize(grid + 1);
    sums_.resize(edges.counted.size() * grid);
  }

  void add(const void* pixels, const Shape& shape, std::size_t m) {
    cell_starts(shape.height, grid_, y_starts_.data());
    cell_starts(shape.width, grid_, x_starts_.data());
    const Divider divide(count_step(shape, grid_));
    for (std::size_t i = 0; i < grid_; ++i) {
      std::fill(sums_.begin(), sums_.end(), 0);
      count_strip(static_cast<const std::uint8_t*>(pixels), shape, y_starts_[i], y_starts_[i + 1]);
      store_strip(y_starts_[i + 1] - y_starts_[i], divide, out_ + (m * grid_ + i) * grid_);
    }
  }

 private:
  void count_strip(const std::uint8_t* pixels, const Shape& shape, std::int32_t begin, std::int32_t end) {
    const std::size_t size = pixel_bytes(edges_.type);
    const std::size_t width = static_cast<std::size_t>(shape.width);
    const std::size_t padded = padded_width(shape.width);
    if (width == 0) return;
    const std::size_t fit = std::max<std::size_t>(16, kStripBytes / (padded * size));
    const std::size_t step = std::min(fit, most_rows_of(edges_.type));
    const std::size_t last = static_cast<std::size_t>(end);
    for (std::size_t row = static_cast<std::size_t>(begin); row < last; row += step) {
      const std::size_t n_rows = std::min(step, last - row);
      reserve(n_rows * padded * size, edges_.counted.size() * padded * size);
      const std::uint8_t* from = pixels + row * width * size;
      if (padded == width) {
        kernels_.pixel_keys[edges_.type](from, n_rows * width, edges_.exempt, keys_.data());
      } else {
        for (std::size_t r = 0; r < n_rows; ++r) {
          kernels_.pixel_keys[edges_.type](from + r * width * size, width, edges_.exempt,
                                           keys_.data() + r * padded * size);
        }
      }
      kernels_.count_columns[edges_.type](keys_.data(), n_rows, padded, edges_.counted.data(), edges_.counted.size(),
                                          counts_.data());
      kernels_.sum_cells[edges_.type](counts_.data(), edges_.counted.size(), padded, x_starts_.data(), grid_,
                                      sums_.data());
    }
  }

  void reserve(std::size_t key_bytes, std::size_t count_bytes) {
    if (keys_.size() < key_bytes) keys_.resize(key_bytes);
    if (counts_.size() < count_bytes) counts_.resize(count_bytes);
  }

  std::uint32_t count_of(std::int32_t row, std::size_t j, std::uint32_t area) const {
    if (row >= 0) return sums_[static_cast<std::size_t>(row) * grid_ + j];
    return row == HistogramEdges::kEvery ? area : 0;
  }

  void store_strip(std::int32_t height, const Divider& divide, std::uint8_t* out) {
    for (std::size_t e = 0; e < edges_.rows.size(); ++e, out += edge_stride_) {
      if (edges_.rows[e] >= 0 && e >= edges_.n_with_nodata) {
        const std::uint32_t* row = sums_.data() + static_cast<std::size_t>(edges_.rows[e]) * grid_;
        if (divide.by_one()) {
          for (std::size_t j = 0; j < grid_; ++j) out[j] = static_cast<std::uint8_t>(row[j]);
        } else {
          for (std::size_t j = 0; j < grid_; ++j) out[j] = divide(row[j]);
        }
        continue;
      }
      for (std::size_t j = 0; j < grid_; ++j) {
        const auto area = static_cast<std::uint32_t>(height * (x_starts_[j + 1] - x_starts_[j]));
        std::uint32_t count = count_of(edges_.rows[e], j, area);
        if (e < edges_.n_with_nodata) {
          count -= count_of(edges_.at_nodata, j, area) - count_of(edges_.above_nodata, j, area);
        }
        out[j] = divide(count);
      }
    }
  }

  const HistogramEdges& edges_;
  std::size_t grid_;
  std::size_t edge_stride_;
  std::uint8_t* out_;
  const KernelTable& kernels_;
  std::vector<std::int32_t> y_starts_;
  std::vector<std::int32_t> x_starts_;
  std::vector<std::uint32_t> sums_;
  std::vector<std::uint8_t> keys_;
  std::vector<std::uint8_t> counts_;
};

}  // namespace

HistogramEdges::HistogramEdges(PixelType pixel_type, const std::vector<std::int32_t>& edges,
                               std::optional<std::int32_t> nodata)
    : type(pixel_type) {
  for (const std::int32_t edge : edges) rows.push_back(add_row(edge));
  exempt = nodata ? *nodata : type == kPixelF32 ? INT32_MIN : -32768;
  if (!nodata || is_float(type)) return;
  n_with_nodata = static_cast<std::size_t>(std::upper_bound(edges.begin(), edges.end(), *nodata) - edges.begin());
  if (n_with_nodata == 0) return;
  at_nodata = add_row(*nodata);
  above_nodata = add_row(static_cast<std::int64_t>(*nodata) + 1);
}

std::int32_t HistogramEdges::add_row(std::int64_t key) {
  // The keys of floats neither begin nor end where their width does.
  if (!is_float(type)) {
    if (key == (type == kPixelU8 ? -128 : -32768)) return kEvery;
    if (key > (type == kPixelU8 ? 127 : 32767)) return kNone;
  }
  counted.push_back(static_cast<std::int32_t>(key));
  return static_cast<std::int32_t>(counted.size()) - 1;
}

void mask_histograms(const HistogramEdges& edges, const void* const* masks, const Shape* shapes, std::size_t n,
                     std::size_t grid, std::uint8_t* out, int threads, const Poll& poll) {
  // Tasks of several masks, so that small ones are worth handing out.
  std::vector<std::size_t> tasks{0};
  std::size_t pixels = 0;
  std::size_t total = 0;
  for (std::size_t m = 0; m < n; ++m) {
    const std::size_t own =
        static_cast<std::size_t>(shapes[m].height) * static_cast<std::size_t>(shapes[m].width) + 256;
    pixels += own;
    total += own;
    if (pixels < kPixelsPerTask && m + 1 < n) continue;
    tasks.push_back(m + 1);
    pixels = 0;
  }
  const std::size_t n_threads = threads_for(total, kPixelsPerThread, threads);
  std::vector<MaskHistogram> workers;
  workers.reserve(n_threads);
  for (std::size_t w = 0; w < n_threads; ++w) workers.emplace_back(edges, grid, n, out);
  const auto body = [&](std::size_t task, std::size_t worker) {
    for (std::size_t m = tasks[task]; m < tasks[task + 1]; ++m) workers[worker].add(masks[m], shapes[m], m);
  };
  parallel_for(tasks.size() - 1, static_cast<int>(n_threads), body, poll);
}

}  // namespace nadb::mask
