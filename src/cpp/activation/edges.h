// Edges: where to cut each neuron's value axis into partitions, from a random sample of the inputs. Implements
// design.md, section 4, 1: zero-width partitions for heavy values, a top edge aimed at the maxima, the rest midway
// between equal depth and equal width.
#pragma once

#include <cstddef>

#include "parallel_for.h"

namespace nadb::activation {

// sample: n_sample x n_neurons, row-major, n_sample >= 1. edges: n_neurons x (2^bits - 1), filled ascending per neuron;
// the code of v is the number of edges <= v. Edges that a neuron has no use for are -inf, in front.
// top_count > 0: at most top_count sample values are >= the last edge, none of them heavy.
// Throws NonFiniteError on a NaN or infinity in the sample. Memory per thread: 16 columns of keys.
template <class Real>
void choose_edges(const Real* sample, std::size_t n_sample, std::size_t n_neurons, int bits, std::size_t top_count,
                  Real* edges, int threads, const Poll& poll);

}  // namespace nadb::activation
