// The error for a NaN or an infinity among activations: it carries the place, so that the Python side can name layer,
// neuron and input (design.md, section 4, 1).
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace nadb::activation {

struct NonFiniteError : std::invalid_argument {
  NonFiniteError(std::size_t row_index, std::size_t neuron_index, double bad_value)
      : std::invalid_argument("activations must be finite, got " + std::to_string(bad_value) + " at row " +
                              std::to_string(row_index) + ", neuron " + std::to_string(neuron_index)),
        row(row_index),
        neuron(neuron_index),
        value(bad_value) {}

  std::size_t row;
  std::size_t neuron;
  double value;
};

}  // namespace nadb::activation
