// Runs a body over numbered tasks on several threads: what every long loop of the core uses (row groups, neuron
// ranges). At least one thread; the first exception of any thread is rethrown after all have been joined
// (docs/ARCHITECTURE.md, "Layers of the code").
#pragma once

#include <cstddef>
#include <functional>

namespace nadb {

// Called by the calling thread alone, between tasks, at most every 50 ms. It may throw to stop the loop: the bindings
// pass one that takes the GIL and looks for Ctrl-C. An empty Poll is never called.
using Poll = std::function<void()>;

// The number of threads to use for a request: the request itself when positive; for 0 the environment variable
// NADB_THREADS, else the number of hardware threads. Throws std::invalid_argument on a negative request or a bad
// variable.
int resolve_threads(int requested);

// The number of threads worth starting for so much work: at most `threads`, at least one, and no more than one per
// `per_thread` units.
std::size_t threads_for(std::size_t work, std::size_t per_thread, int threads);

// Calls body(task, worker) once for every task in [0, n_tasks), worker in [0, threads). Tasks are handed out one at a
// time, so they should each be worth at least some microseconds. A thread that cannot be started is done without.
void parallel_for(std::size_t n_tasks, int threads, const std::function<void(std::size_t, std::size_t)>& body,
                  const Poll& poll = {});

}  // namespace nadb
