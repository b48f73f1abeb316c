#pragma once

#include <string>
#include <string_view>

/// @file
/// Which Saccade this is, and on what it computes.

namespace saccade {

/// "0.2.0": the library's version, by semver.org.
std::string_view version();

/// What a report of a fault should begin with, lines of `name: value`: the CPU's instruction set and threads, whether
/// there is a GPU (or why not), oneDNN's version, the compiler. Opens no GPU.
std::string build_and_machine();

}  // namespace saccade
