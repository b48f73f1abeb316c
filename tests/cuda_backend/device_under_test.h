#pragma once

#include <string>

namespace saccade::testing {

/// What the device has to complain about: on doubles their last sentence, on a real one nothing but errors.
std::string complaint();

}  // namespace saccade::testing
