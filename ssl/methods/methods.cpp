#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/dino.h>
#include <saccade/ssl/methods/methods.h>
#include <saccade/ssl/methods/simclr.h>
#include <saccade/ssl/methods/swav.h>

#include <algorithm>
#include <string>
#include <utility>

namespace saccade::ssl {

std::vector<Method> methods() { return {swav_method(), simclr_method(), dino_method()}; }

Method method(std::string_view name) {
  std::vector<Method> all = methods();
  const auto found = std::ranges::find(all, name, &Method::name);
  if (found != all.end()) return std::move(*found);
  std::vector<std::string> names;
  for (const Method& m : all) names.push_back(m.name);
  throw Error(fmt::format("there is no method \"{}\": expected one of {}", name, fmt::join(names, ", ")));
}

}  // namespace saccade::ssl
