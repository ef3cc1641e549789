// Verified blocks of files in memory, least recently used first out, under a budget in bytes; and ranges of an array
// that are answered from them. Implements the block cache of design.md, section 6. Not safe in threads: the bindings
// hold the GIL in every call but `Spans::read`, so that a fork finds the cache whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "parallel_for.h"
#include "storage/stored_array.h"

namespace nadb::storage {

// A block's bytes; whoever holds one may read it, cached or not.
using Block = std::shared_ptr<const std::uint8_t>;

// One file's block: `file` is what BlockCache::open_file gave.
struct BlockKey {
  std::uint64_t file;
  std::uint64_t block;
  bool operator==(const BlockKey& other) const noexcept { return file == other.file && block == other.block; }
};

// A range of bytes of an array.
struct ByteRange {
  std::size_t offset;
  std::size_t length;
};

// How an array lies in blocks.
struct BlockLayout {
  std::uint64_t file;
  std::size_t n_bytes;
  std::size_t block_bytes;  // at least 1

  std::size_t size_of(std::size_t block) const noexcept {
    const std::size_t begin = block * block_bytes;
    return n_bytes - begin < block_bytes ? n_bytes - begin : block_bytes;
  }
  // The blocks that a range lies in, [first_of, end_of): none where it is empty.
  std::size_t first_of(const ByteRange& range) const noexcept { return range.offset / block_bytes; }
  std::size_t end_of(const ByteRange& range) const noexcept {
    return range.length == 0 ? first_of(range) : (range.offset + range.length - 1) / block_bytes + 1;
  }
};

class BlockCache {
 public:
  // What an entry takes beside the block's bytes: its two nodes, their share of the buckets, the count of its holders.
  static constexpr std::uint64_t kEntryOverhead = 176;

  explicit BlockCache(std::uint64_t budget_bytes) noexcept : budget_bytes_(budget_bytes) {}

  // The number of a file, for one more user of it: the same for the same name while the file has users or blocks here.
  // No number is given to another name.
  std::uint64_t open_file(const std::string& name);
  // One user less.
  void close_file(std::uint64_t file) noexcept;
  // Files that have users or blocks here.
  std::size_t n_files() const noexcept { return files_.size(); }

  // The block, which becomes the one used last, or nullptr.
  Block find(const BlockKey& key);
  // Whether every block of a range is here; asking changes neither their order nor the counters.
  bool holds(const BlockLayout& layout, const ByteRange& range) const noexcept;
  // Keeps a block of `size` bytes unless it is there, larger than the budget, or of a file without users or blocks;
  // others go as needed.
  void put(const BlockKey& key, Block block, std::size_t size);
  void clear() noexcept;

  std::uint64_t budget_bytes() const noexcept { return budget_bytes_; }
  std::uint64_t used_bytes() const noexcept { return used_bytes_; }
  std::size_t size() const noexcept { return entries_.size(); }

  // Work done: ranges that were answered from memory, the others, bytes that came from disk.
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t bytes_read = 0;

 private:
  struct KeyHash {
    std::size_t operator()(const BlockKey& key) const noexcept {
      const std::uint64_t mixed = (key.file * 0x9E3779B97F4A7C15u + key.block) * 0xD6E8FEB86659FD93u;
      return static_cast<std::size_t>(mixed ^ (mixed >> 32));
    }
  };
  struct Entry {
    BlockKey key;
    Block block;
    std::uint64_t cost;
  };
  struct File {
    std::string name;
    std::size_t n_users;
    std::size_t n_blocks;
  };
  using Files = std::unordered_map<std::uint64_t, File>;

  // Lets go of the block that was used least recently.
  void drop_oldest() noexcept;
  // Lets go of a file that has neither users nor blocks.
  void prune(Files::iterator file) noexcept;

  std::uint64_t budget_bytes_;
  std::uint64_t used_bytes_ = 0;
  std::list<Entry> entries_;  // least recently used first
  std::unordered_map<BlockKey, std::list<Entry>::iterator, KeyHash> by_key_;
  std::uint64_t next_file_ = 0;
  Files files_;
  std::unordered_map<std::string, std::uint64_t> numbers_;  // of files_, by name
};

// Ranges of an array. What lies in one block is not copied. Unless it is complete at once: `read`, then `keep`.
class Spans {
 public:
  // Looks up the blocks of the ranges, each of which lies inside the array.
  Spans(BlockCache& cache, const BlockLayout& layout, const std::vector<ByteRange>& ranges);

  // Whether every block was cached.
  bool complete() const noexcept { return absent_.empty(); }

  const BlockLayout& layout() const noexcept { return layout_; }

  // Whether to go on with `read`, which is done once; false where nothing is to be read or somebody has begun.
  bool begin_reading() noexcept { return !complete() && !std::exchange(reading_, true); }
  // Reads the blocks that were not cached, and may do so without the GIL. Throws what storage::read_many throws.
  void read(const StoredArray& array, int threads, const Poll& poll);
  // Puts what was read into the cache.
  void keep(BlockCache& cache);

  std::size_t size() const noexcept { return pointers_.size(); }
  const std::vector<const std::uint8_t*>& pointers() const noexcept { return pointers_; }
  std::size_t length(std::size_t i) const noexcept { return ranges_[i].length; }

 private:
  // Points at every range, joining those of several blocks.
  void resolve();

  BlockLayout layout_;
  std::vector<ByteRange> ranges_;
  std::vector<Block> blocks_;         // of every range, one after the other; nullptr: absent
  std::vector<std::int64_t> absent_;  // ascending
  std::vector<Block> fresh_;          // of `absent_`
  std::vector<std::unique_ptr<std::uint8_t[]>> joined_;
  std::vector<const std::uint8_t*> pointers_;
  bool reading_ = false;
};

}  // namespace nadb::storage
