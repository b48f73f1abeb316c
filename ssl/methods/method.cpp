#include <fmt/format.h>
#include <saccade/ssl/methods/defaults.h>
#include <saccade/ssl/methods/method.h>

#include <algorithm>
#include <type_traits>
#include <utility>

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

Setting head_width(int64_t& hidden) {
  return {.name = "hidden",
          .help = "Width of the projection head",
          .value = &hidden,
          .range = Range::between(1, 1e7),
          .otherwise = {"the trunk's, at least 512",
                        [](const RunFacts& run) { return static_cast<double>(std::max<int64_t>(512, run.features)); }},
          .sizes = true};
}

Default scaled_lr() {
  return {"0.6 (adamw: 0.001) x batch/256", [](const RunFacts& run) {
            return run.optimizer == "larc" ? default_larc_lr(run.images) : default_adamw_lr(run.images);
          }};
}

Default usual_warmup(std::string in_words) {
  return {
      std::move(in_words), [](const RunFacts& run) {
        return static_cast<double>(default_warmup(run.optimizer == "larc", run.images, run.per_epoch, run.iterations));
      }};
}

}  // namespace saccade::ssl
