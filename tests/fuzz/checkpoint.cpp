#include <saccade/core/io/checkpoint.h>
#include <xxhash.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "target.h"

namespace {

using nlohmann::json;

/// A checkpoint of two tensors with this manifest, whose own hash is made to agree: no change of the manifest would be
/// seen otherwise.
std::vector<uint8_t> checkpoint_with(const std::string& manifest) {
  const XXH128_hash_t hash = XXH3_128bits(manifest.data(), manifest.size());
  char hash_text[33];
  std::snprintf(hash_text, sizeof hash_text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  const json header = {{"__metadata__", {{"saccade.checkpoint", manifest}, {"saccade.checkpoint.xxh3_128", hash_text}}},
                       {"a", {{"dtype", "F32"}, {"shape", {2}}, {"data_offsets", {0, 8}}}},
                       {"b", {{"dtype", "I64"}, {"shape", {1}}, {"data_offsets", {8, 16}}}}};
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::vector<uint8_t> file(sizeof length + text.size() + 16, 0);
  std::memcpy(file.data(), &length, sizeof length);
  std::memcpy(file.data() + sizeof length, text.data(), text.size());
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::string manifest(data, data + size);
  std::vector<uint8_t> bytes;
  try {
    bytes = checkpoint_with(manifest);
  } catch (const json::exception&) {
    return -1;  // it is not UTF-8, which no header can hold
  }
  const fuzz::MemoryFile file(bytes);
  try {
    const io::Checkpoint checkpoint = io::load_checkpoint(file.path());
    fuzz::require(checkpoint.tensors.size() == 2, "both tensors are read");
    fuzz::require(checkpoint.step >= 0 && json::accept(checkpoint.state), "step and state are such as can be saved");
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
