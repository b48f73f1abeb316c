#pragma once

#include <saccade/core/named_tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// @file
/// Checkpoints of a run: a folder of files `step-00001234.ckpt`, each a safetensors file that appears whole or not at
/// all. Its metadata holds a manifest: the step, the state, and type, shape and XXH3-128 hash of every tensor. A
/// checkpoint is valid when the manifest and all hashes agree, and never by its name or place.

namespace saccade::io {

struct Checkpoint {
  int64_t step = 0;
  std::string state;  ///< JSON text: everything that is no tensor (schedules, random numbers, sampler position)
  std::vector<NamedTensor> tensors;
  std::filesystem::path path;

  /// Throws Error when there is no tensor of that name.
  const Tensor& operator[](std::string_view name) const;
};

struct SavedCheckpoint {
  std::filesystem::path path;
  std::vector<std::string> warnings;  ///< sentences: old checkpoints that could not be removed
};

/// Writes the checkpoint of a step into the folder, which is made if need be, then removes the oldest so that
/// `keep_last` (at least 1) are left, this one counted. Only earlier steps are removed, and only files of the right
/// name that hold our manifest. Throws NotCommitted and DurabilityUncertain (see AtomicFile), with nothing removed.
SavedCheckpoint save_checkpoint(const std::filesystem::path& folder, int64_t step, std::span<const NamedTensor> tensors,
                                const std::string& state, int keep_last);

/// Throws Error, saying what is wrong, when the file is not a checkpoint or anything in it has changed since it was
/// written.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// Whether the file's header holds a manifest of ours; its tensors are not looked at.
bool is_checkpoint(const std::filesystem::path& path);

/// Whether the file, or what a link leads to, claims to be one: whether it holds a manifest, be that right or not.
bool has_manifest(const std::filesystem::path& path);

/// The steps that have a file in the folder, lowest first; none when there is no such folder. Does not open them.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& folder);

/// The checkpoint of the highest step that verifies. What is wrong with those that do not is added to `problems`, one
/// sentence each. Nothing when the folder has no checkpoint; throws Error when it has some and none verifies.
std::optional<Checkpoint> latest_checkpoint(const std::filesystem::path& folder, std::vector<std::string>& problems);

}  // namespace saccade::io
