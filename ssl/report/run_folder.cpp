#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/run_folder.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

namespace saccade::ssl {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kEvents = "events.out.tfevents.";

/// The first or last bytes of a file, as many of `bytes` as there are.
std::string bytes_of(const fs::path& path, std::streamsize bytes, bool last = false) {
  std::ifstream file(path, std::ios::binary);
  if (last) {
    file.seekg(0, std::ios::end);
    file.seekg(-std::min<std::streamoff>(bytes, file.tellg()), std::ios::end);
  }
  std::string read(static_cast<size_t>(bytes), '\0');
  file.read(read.data(), bytes);
  read.resize(static_cast<size_t>(file.gcount()));
  return read;
}

/// A header that has this key in its metadata, or a tensor of this name.
bool is_safetensors_with(const fs::path& path, const std::string& key, const std::string& tensor) {
  try {
    const io::SafetensorsHeader header = io::read_safetensors_header(path);
    return header.metadata.contains(key) ||
           std::ranges::any_of(header.entries, [&](const auto& t) { return t.name == tensor; });
  } catch (const Error&) {
    return false;
  }
}

/// Whether settings of a run begin so, or did in earlier versions: with what the program is for, in a line.
bool begins_settings(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  return text.starts_with(RunFolder::kConfigStart) ||
         line.starts_with("# Learns features from a folder of images without labels (") ||
         line.ends_with(" pre-training on Fashion-MNIST, and what the features are worth");
}

/// Whether a file's content is what a run writes under its name.
bool is_of_run(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name == "config.toml") return begins_settings(bytes_of(path, 200));
  if (name == "log.jsonl") return bytes_of(path, 9) == "{\"kind\":\"";
  if (name == "data.tsv") return bytes_of(path, std::ssize(RunFolder::kDataStart)) == RunFolder::kDataStart;
  if (name == "report.html") return bytes_of(path, 60, true).find("Written by Saccade.") != std::string::npos;
  if (name == "trunk.safetensors") return is_safetensors_with(path, "trunk", "");
  if (name == "not-finite.safetensors") return is_safetensors_with(path, "iteration", "embeddings");
  // A record's length and checksum, the time, the step though it is 0 (which others leave out), the version.
  return name.starts_with(kEvents) && bytes_of(path, 38).ends_with(std::string("\x10\0\x1a\rbrain.Event:2", 17));
}

constexpr std::array kNames{"config.toml", "data.tsv",          "log.jsonl",
                            "report.html", "trunk.safetensors", "not-finite.safetensors"};

/// What lies in a folder that may be a run's.
struct Content {
  std::vector<fs::path> files;       ///< of a run
  std::vector<std::string> taken;    ///< names that a run writes to, of other files
  std::vector<std::string> foreign;  ///< others, but hidden ones
  bool is_run = false;
};

Content content_of(const fs::path& folder) {
  Content content;
  std::error_code error, none;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with('.')) continue;
    const bool fixed = std::ranges::find(kNames, name) != kNames.end();
    const bool known = (fixed || name.starts_with(kEvents)) && at->is_regular_file(none);
    if (known && at->file_size(none) == 0) {
      content.files.push_back(at->path());  // of a run that was killed; it tells nothing, and nothing is lost with it
    } else if (known && is_of_run(at->path())) {
      content.files.push_back(at->path());
      content.is_run = content.is_run || name == "config.toml" || name == "log.jsonl";
    } else if (name == "checkpoints" && at->is_directory(none)) {
      for (const int64_t step : io::checkpoint_steps(at->path())) {
        content.files.push_back(at->path() / fmt::format("step-{:08}.ckpt", step));
        if (io::is_checkpoint(content.files.back()))
          content.is_run = true;
        else
          content.foreign.push_back("checkpoints/" + content.files.back().filename().string());
      }
    } else {
      (fixed || name == "checkpoints" ? content.taken : content.foreign).push_back(name);
    }
  }
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    throw Error(fmt::format("the run folder {} cannot be looked into: {}", folder.string(), error.message()));
  std::ranges::sort(content.taken);
  std::ranges::sort(content.foreign);
  // Settings that a person wrote anew are still those of a run.
  if (content.is_run) std::erase(content.taken, "config.toml");
  return content;
}

}  // namespace

void RunFolder::check(const fs::path& path) {
  const Content content = content_of(path);
  if (content.is_run && content.taken.empty()) return;
  std::vector<std::string> names = content.taken;
  if (!content.is_run) names.insert(names.end(), content.foreign.begin(), content.foreign.end());
  if (names.empty()) return;
  std::string more;
  if (names.size() > 3) more = fmt::format(" and {} more", names.size() - 3);
  names.resize(std::min<size_t>(names.size(), 3));
  const std::string list = fmt::format("{}{}", fmt::join(names, ", "), more);
  throw Error(
      content.is_run
          ? fmt::format("the run folder {} holds what no run wrote under names that a run needs: {}. Move it away.",
                        path.string(), list)
          : fmt::format("{} is not the folder of a run, and not empty: it holds {}. Take a new or empty folder.",
                        path.string(), list));
}

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  check(path_);
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw Error(fmt::format("the run folder {} cannot be made: {}", path_.string(), error.message()));
  lock_ = open((path_ / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) {
    throw Error(fmt::format("the run folder {} cannot be written to: {}", path_.string(), std::strerror(errno)));
  }
  // The system lifts the lock when the process ends, however it ends.
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const bool taken = errno == EWOULDBLOCK;
    const std::string reason = std::strerror(errno);
    close(lock_);
    throw Error(taken ? fmt::format("another process is training in the run folder {}", path_.string())
                      : fmt::format("the run folder {} cannot be locked: {}", path_.string(), reason));
  }
}

RunFolder::~RunFolder() { close(lock_); }

bool RunFolder::holds_checkpoint(const fs::path& path) {
  std::error_code none;
  return fs::is_directory(path / "checkpoints", none) && !io::checkpoint_steps(path / "checkpoints").empty();
}

void RunFolder::clear() {
  const Content content = content_of(path_);
  for (const fs::path& file : content.files)
    if (file.extension() == ".ckpt" && !io::is_checkpoint(file))
      throw Error(
          fmt::format("{} is damaged, or no checkpoint of a run: it is left; remove it to start over", file.string()));
  for (const fs::path& file : content.files) {
    std::error_code error;
    fs::remove(file, error);
    if (error) throw Error(fmt::format("{} cannot be removed: {}", file.string(), error.message()));
  }
}

}  // namespace saccade::ssl
