#include <fmt/format.h>
#include <saccade/ssl/methods/method.h>

#include <type_traits>

namespace saccade::ssl {

Range Range::between(double low, double high) {
  return {fmt::format("a number from {} to {}", low, high), [=](double v) { return v >= low && v <= high; }};
}
Range Range::at_least(double low) {
  return {fmt::format("a number, at least {}", low), [=](double v) { return v >= low && v <= 1e15; }};
}
Range Range::above_zero() {
  return {"a number above 0", [](double v) { return v >= 1e-30 && v <= 1e30; }};
}

void Setting::set(double number) const {
  std::visit([&](auto* place) { *place = static_cast<std::remove_pointer_t<decltype(place)>>(number); }, value);
}

std::string Setting::text() const {
  return std::visit([](const auto* place) { return fmt::format("{}", *place); }, value);
}

void Method::settle(const RunFacts& facts, const std::function<bool(const Setting&)>& chosen) const {
  for (const Setting& setting : settings)
    if (setting.otherwise.find && !chosen(setting)) setting.set(setting.otherwise.find(facts));
}

MakeObjective Method::dearest(const std::string& description) const {
  return [method = *this, description] {
    const MakeTrunk trunk = [&] { return nn::trunk(description); };
    return method.make_dearest ? method.make_dearest(trunk(), trunk) : method.make(trunk(), trunk, 0);
  };
}

}  // namespace saccade::ssl
