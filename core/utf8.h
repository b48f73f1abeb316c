#pragma once

#include <cstddef>
#include <string_view>

namespace saccade {

/// Length of the well-formed UTF-8 sequence that `text` starts with (Unicode 15, table 3-7), 0 if there is none.
size_t utf8_length(std::string_view text);

}  // namespace saccade
