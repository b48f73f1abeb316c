#pragma once

#include <string>
#include <string_view>

namespace saccade::io {

/// Part of a hostile file, made fit for a sentence: at most 80 bytes of it, in quotes, as ASCII.
std::string in_quotes(std::string_view text);

}  // namespace saccade::io
