#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace saccade {

/// A size for people: "436.2 MiB", "13.37 GiB".
std::string bytes_text(int64_t bytes);

/// Reads "14GiB", "900 MiB", "1.5GB", "64k" or plain bytes: K, M, G, T with "iB" or alone are powers of 1024, with "B"
/// powers of 1000. Throws saccade::Error on anything else, and on what is not positive.
int64_t parse_bytes(std::string_view text);

}  // namespace saccade
