#pragma once

#include <string>
#include <string_view>

namespace saccade::data {

/// A name of any bytes as text that is valid UTF-8 and stays on its line: control characters and bytes that are no
/// UTF-8 become \xNN, all else is kept. Most names come back as they are.
std::string printable(std::string_view bytes);

}  // namespace saccade::data
