#include <fmt/format.h>
#include <saccade/core/bytes.h>
#include <saccade/kernels/error.h>

#include <cctype>
#include <charconv>
#include <cmath>

namespace saccade {

std::string bytes_text(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1024.0 * 1024.0);
  return std::abs(mib) < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

int64_t parse_bytes(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit;
  for (const char* c = end; c != text.data() + text.size(); ++c)
    if (*c != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(*c)));
  double factor = 1;
  bool known = error == std::errc();
  if (!unit.empty() && unit != "B") {
    const size_t power = std::string_view("KMGT").find(unit[0]);
    const std::string rest = unit.substr(1);
    known = known && power != std::string_view::npos && (rest.empty() || rest == "IB" || rest == "B");
    factor = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double bytes = value * factor;
  if (!known || !(bytes >= 1) || bytes > 0x1p62)
    throw Error(fmt::format("\"{}\" is not a size; expected one like 14GiB, 900MiB or 1.5GB", text));
  return static_cast<int64_t>(bytes);
}

}  // namespace saccade
