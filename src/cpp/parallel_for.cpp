// Threads over numbered tasks; see parallel_for.h. Threads are started per call: calls are few and long, and no pool
// means nothing to break in a forked child.
#include "parallel_for.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace nadb {

namespace {

constexpr std::chrono::milliseconds kPollInterval(50);
constexpr long kMaxThreads = 1024;

int threads_from_environment() {
  const char* text = std::getenv("NADB_THREADS");
  if (text == nullptr || *text == '\0') return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1 || value > kMaxThreads) {
    throw std::invalid_argument("the environment variable NADB_THREADS must be a whole number from 1 to 1024, got '" +
                                std::string(text) + "'; unset it to use every hardware thread");
  }
  return static_cast<int>(value);
}

}  // namespace

int resolve_threads(int requested) {
  if (requested < 0 || requested > kMaxThreads) {
    throw std::invalid_argument("`threads` must lie in [0, 1024] (0: NADB_THREADS, else every hardware thread), got " +
                                std::to_string(requested));
  }
  return requested > 0 ? requested : threads_from_environment();
}

std::size_t threads_for(std::size_t work, std::size_t per_thread, int threads) {
  return std::max<std::size_t>(1, std::min(work / per_thread, static_cast<std::size_t>(std::max(1, threads))));
}

void parallel_for(std::size_t n_tasks, int threads, const std::function<void(std::size_t, std::size_t)>& body,
                  const Poll& poll) {
  if (n_tasks == 0) return;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  std::exception_ptr first_error;
  std::mutex error_mutex;

  const auto work = [&](std::size_t worker) {
    auto last_poll = std::chrono::steady_clock::now();
    try {
      while (!stop.load(std::memory_order_relaxed)) {
        const std::size_t task = next.fetch_add(1, std::memory_order_relaxed);
        if (task >= n_tasks) break;
        body(task, worker);
        if (worker != 0 || !poll) continue;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_poll < kPollInterval) continue;
        last_poll = now;
        poll();
      }
    } catch (...) {
      stop.store(true, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!first_error) first_error = std::current_exception();
    }
  };

  std::vector<std::thread> others;
  const std::size_t wanted = std::min<std::size_t>(n_tasks, static_cast<std::size_t>(std::max(1, threads)));
  others.reserve(wanted - 1);
  for (std::size_t worker = 1; worker < wanted; ++worker) {
    try {
      others.emplace_back(work, worker);
    } catch (const std::exception&) {
      break;  // the system has no thread or memory to spare; those that run share the tasks
    }
  }
  work(0);
  for (std::thread& other : others) other.join();
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace nadb
