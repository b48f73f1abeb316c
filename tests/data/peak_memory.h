#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace saccade::data {

/// Of this process, in kB: a line of /proc/self/status.
inline int64_t process_status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word && word != name + ":") file.ignore(1000, '\n');
  int64_t value = 0;
  file >> value;
  return value;
}

/// What a function takes at its peak beyond what is there before, in kB; 0 where the system does not let the peak be
/// reset.
template <class Function>
int64_t peak_kb(Function function) {
  const bool reset = static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush);
  const int64_t before = process_status("VmRSS");
  function();
  return reset ? process_status("VmHWM") - before : 0;
}

}  // namespace saccade::data
