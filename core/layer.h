#pragma once

#include <string>
#include <string_view>

namespace saccade {

/// Names the layer that runs on this thread while the scope lives: nested scopes join with dots ("trunk.block3-1.f.b").
/// Errors, tape nodes and memory reports carry the name, and on CUDA what profilers show (NVTX).
class LayerScope {
 public:
  explicit LayerScope(std::string_view name);
  /// The full name, in place of what is current: for work that is done later on a layer's behalf.
  static LayerScope absolute(std::string_view full_name) { return {full_name, 0}; }
  ~LayerScope();
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;
  /// The full dotted name, empty outside any layer.
  static const std::string& current();

 private:
  LayerScope(std::string_view full_name, int);
  void mark();
  size_t previous_length_ = 0;
  std::string replaced_;  ///< what an absolute name stands in for
  bool absolute_ = false;
  bool marked_ = false;  ///< for CUDA's profilers
};

/// Throws saccade::Error with the sentence, and the layer it happened in.
[[noreturn]] void fail(const std::string& sentence);

}  // namespace saccade
