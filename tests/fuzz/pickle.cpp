#include <saccade/core/io/pickle.h>
#include <saccade/core/io/weight_file.h>

#include <utility>
#include <vector>

#include "target.h"

namespace {

void put(std::string& to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to += static_cast<char>(i < 8 ? value >> (8 * i) : 0);
}

/// An archive of these entries, stored as they are, with no checksums (which are no more than remarked upon).
std::string archive_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string archive, directory;
  const auto describe = [](std::string& to, const auto& entry) {
    put(to, 0, 12);  // flags, method, time, checksum
    put(to, entry.second.size(), 4);
    put(to, entry.second.size(), 4);
    put(to, entry.first.size(), 2);
  };
  for (const auto& entry : entries) {
    const size_t header = archive.size();
    archive += "PK\3\4";
    put(archive, 20, 2);
    describe(archive, entry);
    put(archive, 0, 2);
    archive += entry.first + entry.second;
    directory += "PK\1\2";
    put(directory, 20 | 20 << 16, 4);
    describe(directory, entry);
    put(directory, 0, 12);
    put(directory, header, 4);
    directory += entry.first;
  }
  const size_t start = archive.size();
  archive += directory + "PK\5\6";
  put(archive, 0, 4);
  put(archive, entries.size() | entries.size() << 16, 4);
  put(archive, directory.size(), 4);
  put(archive, start, 4);
  put(archive, 0, 2);
  return archive;
}

}  // namespace

/// The bytes as a pickle, alone and as the one in PyTorch's archive, with two storages of 48 bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::string bytes(data, data + size);
  try {
    io::MemoryBudget budget(size);
    const io::Pickle pickle(bytes, budget);
  } catch (const Error&) {
    return 0;
  }
  const std::string archive = archive_of({{"a/data.pkl", bytes},
                                          {"a/byteorder", "little"},
                                          {"a/data/0", std::string(48, '\1')},
                                          {"a/data/1", std::string(48, '\2')},
                                          {"a/version", "3\n"}});
  try {
    const io::WeightFile weights = io::read_weights(io::ByteSource(archive), "weights.pth");
    for (const NamedTensor& each : weights.tensors)
      fuzz::require(each.tensor.defined() && !each.name.empty(), "a tensor has a name");
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
