#pragma once

#include <string>
#include <string_view>

namespace saccade {

/// Names the layer that runs on this thread while the scope lives: nested scopes join with dots ("trunk.block3-1.f.b").
/// Errors, tape nodes and memory reports carry the name.
class LayerScope {
 public:
  explicit LayerScope(std::string_view name);
  ~LayerScope();
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;
  /// The full dotted name, empty outside any layer.
  static const std::string& current();

 private:
  size_t previous_length_;
};

/// Throws saccade::Error with the sentence, and the layer it happened in.
[[noreturn]] void fail(const std::string& sentence);

}  // namespace saccade
