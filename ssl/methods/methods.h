#pragma once

#include <saccade/ssl/methods/method.h>

#include <string_view>
#include <vector>

namespace saccade::ssl {

/// All methods, each with fresh options. The first is what a run takes when nobody chose.
std::vector<Method> methods();

/// The method of that name, with fresh options. Throws Error, naming those there are, when there is none.
Method method(std::string_view name);

}  // namespace saccade::ssl
