#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/run_log.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace saccade::ssl {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// The object of a line, discarded if it is none.
json parse(const std::string& line) {
  json object = json::parse(line, nullptr, false);
  return object.is_object() ? object : json(json::value_t::discarded);
}

int64_t step_of(const json& object) {
  const auto step = object.find("step");
  return step != object.end() && step->is_number_integer() ? step->get<int64_t>() : -1;
}

}  // namespace

RunLog::RunLog(std::filesystem::path path) : path_(std::move(path)), file_(std::fopen(path_.c_str(), "ae")) {
  if (!file_) throw Error(fmt::format("could not open {}: {}", path_.string(), std::strerror(errno)));
  std::ifstream old(path_, std::ios::binary);
  if (old.seekg(-1, std::ios::end) && old.get() != '\n') std::fputc('\n', file_.get());  // ends a line that was cut off
}

void RunLog::write(std::string_view kind, int64_t step, std::span<const LogField> fields) {
  if (!std::exchange(has_stepped_, true)) rewind(step);
  append(kind, &step, fields);
}

void RunLog::write(std::string_view kind, std::span<const LogField> fields) { append(kind, nullptr, fields); }

void RunLog::rewind(int64_t step) {
  std::string kept;
  bool dropped = false;
  std::ifstream old(path_);
  for (std::string line; std::getline(old, line);) {
    const json object = parse(line);
    const bool keep = !object.is_discarded() && step_of(object) < step;
    if (keep) kept += line + '\n';
    dropped |= !keep;
  }
  if (!dropped) return;
  file_.reset();
  io::write_file_atomically(path_, kept);
  file_.reset(std::fopen(path_.c_str(), "ae"));
  if (!file_) throw Error(fmt::format("could not open {}: {}", path_.string(), std::strerror(errno)));
}

void RunLog::append(std::string_view kind, const int64_t* step, std::span<const LogField> fields) {
  ordered_json object = {{"kind", kind}};
  if (step != nullptr) object["step"] = *step;
  for (const auto& [name, value] : fields) std::visit([&, &name = name](const auto& v) { object[name] = v; }, value);
  const std::string line = object.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0)
    throw Error(fmt::format("could not write {}: {}", path_.string(), std::strerror(errno)));
}

std::vector<LogLine> read_run_log(const std::filesystem::path& path, int64_t* broken_lines) {
  std::ifstream file(path);
  if (!file) throw Error(fmt::format("could not open {}: {}", path.string(), std::strerror(errno)));
  std::vector<LogLine> lines;
  if (broken_lines != nullptr) *broken_lines = 0;
  for (std::string text; std::getline(file, text);) {
    const json object = parse(text);
    if (object.is_discarded() || !object.contains("kind") || !object["kind"].is_string()) {
      if (broken_lines != nullptr) ++*broken_lines;
      continue;
    }
    LogLine line;
    line.kind = object["kind"];
    line.step = step_of(object);
    for (const auto& [name, value] : object.items()) {
      if (value.is_number()) line.numbers[name] = value;
      if (value.is_string()) line.texts[name] = value;
      if (value.is_array())
        for (const json& each : value)
          if (each.is_string()) line.lists[name].push_back(each);
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace saccade::ssl
