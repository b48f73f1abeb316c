#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/io/foreign_file.h>
#include <saccade/core/io/input_file.h>
#include <saccade/core/io/pickle_opcodes.h>
#include <saccade/core/io/pytorch_file.h>
#include <saccade/core/io/quoted_text.h>
#include <saccade/core/io/weight_file.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace saccade::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

WeightFile read_safetensors(const ByteSource& source) {
  SafetensorsHeader header = read_safetensors_header(source);
  if (header.metadata.contains("saccade.checkpoint"))
    throw Error("it is a checkpoint of a run, whose tensors lie as in memory: give it under its name, .ckpt");
  CastCount casts;
  std::vector<NamedTensor> tensors = read_tensors(source, header, casts);
  return {std::move(tensors), std::move(header.metadata), casts.words()};
}

/// A length that the header could have, and behind it the brace that it begins with.
bool may_be_safetensors(const ByteSource& source) {
  constexpr size_t looked_at = 4096;
  if (source.size() < 9) return false;
  uint64_t length = 0;
  source.read(0, &length, sizeof(length));
  if (length > 100'000'000) return false;
  const std::string start = source.text(8, static_cast<size_t>(std::min<uint64_t>(source.size() - 8, looked_at)));
  const size_t first = start.find_first_not_of(" \t\r\n");
  return first != start.npos && start[first] == '{';
}

/// Whether a file is one pickle of protocol 0 or 1, which have no magic number, from the first byte to the last.
bool is_old_pickle(const ByteSource& source) {
  try {
    return pickle_end(source, 0) == source.size();
  } catch (const Error&) {
    return false;
  }
}

constexpr int kDeepest = 4;  // an index nests two deep

/// Opens a file and says its name should reading it go wrong.
template <class Read>
auto naming(const fs::path& path, const Read& read) {
  const InputFile file(path);
  try {
    return read(ByteSource(file));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", path.string(), error.what()));
  }
}

WeightFile read_one(const fs::path& path) {
  return naming(path, [&](const ByteSource& source) { return read_weights(source, path); });
}

WeightFile read_shards(const fs::path& index) {
  const std::map<std::string, std::string> map = naming(index, read_weight_index);
  const fs::path folder = index.parent_path();
  std::set<std::string> shards;
  for (const auto& [tensor, file] : map) shards.insert(file);
  std::vector<std::string> missing;
  for (const std::string& file : shards)
    if (!fs::exists(folder / file)) missing.push_back(file);
  if (!missing.empty())
    throw Error(fmt::format("{}: {} of the {} files it names {} missing, {}{}: fetch or copy {} again", index.string(),
                            missing.size(), shards.size(), missing.size() == 1 ? "is" : "are", missing[0],
                            missing.size() > 1 ? ", ..." : "", missing.size() == 1 ? "it" : "them"));
  WeightFile result;
  std::map<std::string, std::string> found;
  for (const std::string& file : shards) {
    WeightFile shard = read_one(folder / file);
    for (NamedTensor& tensor : shard.tensors) {
      const auto [place, is_new] = found.emplace(tensor.name, file);
      if (!is_new)
        throw Error(fmt::format("{}: tensor {} is there twice, in {} and in {}", index.string(), in_quotes(tensor.name),
                                place->second, file));
      result.tensors.push_back(std::move(tensor));
    }
    result.metadata.merge(shard.metadata);
    for (const std::string& word : shard.words) result.words.push_back(fmt::format("{}: {}", file, word));
  }
  for (const auto& [tensor, file] : map) {
    const auto place = found.find(tensor);
    if (place == found.end() || place->second != file)
      throw Error(
          fmt::format("{}: it says that tensor {} is in {}, where it is not", index.string(), in_quotes(tensor), file));
  }
  return result;
}

}  // namespace

WeightFile read_weights(const ByteSource& source, const fs::path& path) {
  const std::string start = source.text(0, static_cast<size_t>(std::min<uint64_t>(source.size(), 4)));
  MemoryBudget budget(source.size());
  if (start == "PK\3\4" || start == "PK\5\6") {
    std::vector<ZipEntry> entries = read_zip_directory(source, budget);
    if (const std::string is = foreign_archive(entries, path); !is.empty()) throw Error("it is " + is);
    return read_pytorch_archive(source, std::move(entries), budget);
  }
  if (start.size() > 1 && start[0] == '\x80' && static_cast<uint8_t>(start[1]) <= 5)
    return read_pickles(source, budget);
  if (may_be_safetensors(source)) return read_safetensors(source);
  if (is_old_pickle(source)) return read_pickles(source, budget);
  if (const std::string is = foreign_file(source, path); !is.empty()) throw Error("it is " + is);
  throw Error(
      "it is neither safetensors nor what PyTorch saves (.pth, .pt, .bin), nor any other format known here: in Python, "
      "torch.save(state_dict, \"weights.pth\") writes what is taken");
}

std::map<std::string, std::string> read_weight_index(const ByteSource& source) {
  constexpr uint64_t largest = 4 << 20;
  if (source.size() > largest)
    throw Error(fmt::format("it is too large for an index: {} bytes, at most {} are allowed", source.size(), largest));
  const auto shallow = [](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest) throw Error(fmt::format("it nests more than {} deep, which no index does", kDeepest));
    return true;
  };
  const std::string text = source.text(0, static_cast<size_t>(source.size()));
  if (!json::accept(text)) throw Error("it is not valid JSON");
  const json index = json::parse(text, shallow);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty())
    throw Error("it has no \"weight_map\", which says where each tensor is");
  std::map<std::string, std::string> result;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
      throw Error(fmt::format("it says that tensor {} is in {}, which is no file beside it", in_quotes(tensor),
                              in_quotes(file.dump(-1, ' ', true, json::error_handler_t::replace))));
    result[tensor] = name;
  }
  return result;
}

WeightFile load_weights(const fs::path& path) {
  const auto read = [](const fs::path& file) {
    return file.string().ends_with(".index.json") ? read_shards(file) : read_one(file);
  };
  if (!fs::is_directory(path)) return read(path);
  constexpr std::array names = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                "pytorch_model.bin.index.json"};
  for (const char* name : names)
    if (fs::exists(path / name)) return read(path / name);
  const std::string is = foreign_folder(path);
  if (!is.empty()) throw Error(fmt::format("{}: it is {}", path.string(), is));
  std::string such;
  for (const auto& entry : fs::directory_iterator(path)) {
    const fs::path extension = entry.path().extension();
    for (const char* known : {".safetensors", ".pth", ".pt", ".bin", ".tar"})
      if (extension == known) such = std::max(such, entry.path().string());
  }
  throw Error(fmt::format("{}: the folder has none of {}: give the file of weights in it{}{}", path.string(),
                          fmt::join(names, ", "), such.empty() ? "" : ", such as ", such));
}

}  // namespace saccade::io
