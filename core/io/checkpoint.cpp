#include <fmt/format.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/kernels/error.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace saccade::io {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char *kManifest = "saccade.checkpoint", *kManifestHash = "saccade.checkpoint.xxh3_128";
constexpr int kFormat = 1;

std::string hash_of(const void* data, size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

/// What the manifest says of a tensor. Type and shape are there because bytes alone do not tell (2, 3) from (3, 2).
std::string fingerprint(const Tensor& tensor) {
  if (tensor.device() == Device::meta) throw Error("checkpoint: a meta tensor has no data to save");
  const Tensor here = tensor.to(Device::cpu);
  return fmt::format("{} {} {}", name_of(here.dtype()), to_string(here.shape()), hash_of(here.raw(), here.bytes()));
}

fs::path path_of(const fs::path& folder, int64_t step) { return folder / fmt::format("step-{:08}.ckpt", step); }

/// The step of a file name that save_checkpoint gives, nothing for any other name.
std::optional<int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  int64_t step = -1;
  if (name.starts_with("step-")) std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (step < 0 || path_of({}, step) != name) return std::nullopt;
  return step;
}

/// The manifest of a header, once its own hash agrees.
json manifest_of(const Metadata& metadata) {
  const auto manifest = metadata.find(kManifest), hash = metadata.find(kManifestHash);
  if (manifest == metadata.end() || hash == metadata.end()) throw Error("it holds no manifest: not a checkpoint");
  if (hash_of(manifest->second.data(), manifest->second.size()) != hash->second)
    throw Error("its manifest has changed since it was written");
  json parsed = json::parse(manifest->second);
  const json& format = parsed.at("format");
  if (format != kFormat)
    throw Error(fmt::format("it has checkpoint format {}, this program reads {}",
                            format.is_number() ? format.dump() : std::string("of another kind"), kFormat));
  return parsed;
}

std::vector<std::string> prune(const fs::path& folder, int64_t newest, int keep_last) {
  std::vector<std::string> warnings;
  std::vector<int64_t> steps = checkpoint_steps(folder);
  std::erase_if(steps, [&](int64_t step) { return step >= newest || !is_checkpoint(path_of(folder, step)); });
  for (size_t i = 0; i + static_cast<size_t>(keep_last) - 1 < steps.size(); ++i) {
    std::error_code error;
    if (!fs::remove(path_of(folder, steps[i]), error) && error)
      warnings.push_back(fmt::format("the old checkpoint {} could not be removed: {}",
                                     path_of(folder, steps[i]).string(), error.message()));
  }
  return warnings;
}

}  // namespace

const Tensor& Checkpoint::operator[](std::string_view name) const {
  for (const NamedTensor& each : tensors)
    if (each.name == name) return each.tensor;
  throw Error(fmt::format("the checkpoint {} has no tensor '{}'", path.string(), name));
}

SavedCheckpoint save_checkpoint(const fs::path& folder, int64_t step, std::span<const NamedTensor> tensors,
                                const std::string& state, int keep_last) {
  if (step < 0 || keep_last < 1)
    throw Error(fmt::format("save_checkpoint: step {} and keep_last {}; at least 0 and 1 are needed", step, keep_last));
  if (!json::accept(state)) throw Error("save_checkpoint: the state is not valid JSON");
  json hashes = json::object();
  for (const NamedTensor& each : tensors) hashes[each.name] = fingerprint(each.tensor);
  const json manifest = {{"format", kFormat}, {"step", step}, {"state", state}, {"tensors", std::move(hashes)}};
  const std::string text = manifest.dump();

  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(fmt::format("could not make the folder {}: {}", folder.string(), error.message()));
  const fs::path path = path_of(folder, step);
  save_safetensors(path, tensors, {{kManifest, text}, {kManifestHash, hash_of(text.data(), text.size())}});
  return {path, prune(folder, step, keep_last)};
}

Checkpoint load_checkpoint(const fs::path& path) try {
  Safetensors file = load_safetensors(path);
  const json manifest = manifest_of(file.metadata);
  const json& hashes = manifest.at("tensors");
  if (hashes.size() != file.tensors.size())
    throw Error(fmt::format("its manifest names {} tensors, it holds {}", hashes.size(), file.tensors.size()));
  for (const NamedTensor& each : file.tensors) {
    const auto hash = hashes.find(each.name);
    if (hash == hashes.end()) throw Error(fmt::format("its manifest does not name the tensor '{}'", each.name));
    if (hash->get<std::string>() != fingerprint(each.tensor))
      throw Error(fmt::format("the tensor '{}' has changed since it was written", each.name));
  }
  // Only integers are converted: a real number may be larger than any step.
  const json& step = manifest.at("step");
  if (!step.is_number_integer() || step.get<int64_t>() < 0) throw Error("its manifest gives no step");
  std::string state = manifest.at("state");
  if (!json::accept(state)) throw Error("the state in its manifest is not valid JSON");
  return {step, std::move(state), std::move(file.tensors), path};
} catch (const OutOfMemory&) {
  throw;  // says nothing about the file
} catch (const std::exception& error) {
  throw Error(fmt::format("the checkpoint {} cannot be used: {}", path.string(), error.what()));
}

bool has_manifest(const fs::path& path) {
  try {
    return read_safetensors_header(path).metadata.contains(kManifest);
  } catch (const Error&) {
    return false;  // another kind of file
  }
}

bool is_checkpoint(const fs::path& path) {
  try {
    if (!fs::is_regular_file(fs::symlink_status(path))) return false;
    manifest_of(read_safetensors_header(path).metadata);
    return true;
  } catch (const std::exception&) {
    return false;  // whatever it is
  }
}

std::vector<int64_t> checkpoint_steps(const fs::path& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (const auto step = step_of(entry->path())) steps.push_back(*step);
  if (error && error != std::errc::no_such_file_or_directory)
    throw Error(fmt::format("could not look into the checkpoint folder {}: {}", folder.string(), error.message()));
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<Checkpoint> latest_checkpoint(const fs::path& folder, std::vector<std::string>& problems) {
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      return load_checkpoint(path_of(folder, *step));
    } catch (const OutOfMemory&) {
      throw;
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  if (steps.empty()) return std::nullopt;
  throw Error(fmt::format("none of the {} checkpoints in {} can be used; the newest: {}", steps.size(), folder.string(),
                          problems[problems.size() - steps.size()]));
}

}  // namespace saccade::io
