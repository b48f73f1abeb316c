#pragma once

#include <saccade/core/context.h>

#include <string>
#include <string_view>

namespace saccade {

/// Names the layer that runs on this thread while the scope lives: nested scopes join with dots ("trunk.block3-1.f.b").
/// Errors, tape nodes and memory reports carry the name, and on CUDA what profilers show (NVTX).
class [[nodiscard]] LayerScope {
 public:
  explicit LayerScope(std::string_view name);
  /// The layer of an earlier scope (Context::layer), in place of what is current: for work that is done later on its
  /// behalf.
  explicit LayerScope(const std::string* layer);
  ~LayerScope();
  /// The full dotted name, empty outside any layer. The reference stays good: names are kept.
  static const std::string& current();

 private:
  FieldScope<&Context::layer> scope_;
  bool marked_;  ///< for CUDA's profilers
};

/// Throws saccade::Error with the sentence, and the layer it happened in.
[[noreturn]] void fail(const std::string& sentence);

}  // namespace saccade
