#pragma once

#include <cstdint>

namespace saccade::nn {

/// The first layer of a trunk. All end in batch norm and ReLU.
enum class Stem : uint8_t {
  simple,  ///< 3x3 convolution of stride 2: the RegNet papers' networks
  cifar,   ///< 3x3 convolution of stride 1, for images of about 32 pixels
  resnet,  ///< 7x7 convolution of stride 2, then 3x3 max pooling of stride 2
};

}  // namespace saccade::nn
