#include <saccade/core/io/quoted_text.h>

#include <nlohmann/json.hpp>

namespace saccade::io {

std::string in_quotes(std::string_view text) {
  using nlohmann::json;
  return json(std::string(text.substr(0, 80))).dump(-1, ' ', true, json::error_handler_t::replace);
}

}  // namespace saccade::io
