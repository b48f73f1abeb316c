#include <fmt/format.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>

namespace saccade::data {

namespace fs = std::filesystem;

Source open_source(const std::string& path, bool train, int channels) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw Error(fmt::format("{}: there is no such folder or file", path));
  if (!fs::is_directory(path, ignored)) return idx(path);
  for (const char* suffix : {"", ".gz"}) {
    const std::string name = std::string(train ? "train" : "t10k") + "-images-idx3-ubyte" + suffix;
    if (fs::exists(fs::path(path) / name, ignored)) return fashion_mnist(path, train);
  }
  const fs::path train_folder = fs::path(path) / "train";
  if (fs::is_directory(train_folder, ignored)) {
    for (const char* name : {"test", "val"}) {
      const fs::path test_folder = fs::path(path) / name;
      if (fs::is_directory(test_folder, ignored)) return folder(train ? train_folder : test_folder, channels);
    }
  }
  return folder(path, channels);
}

Source subset(const Source& source, std::vector<int64_t> indices) {
  Source out = source;
  out.count = static_cast<int64_t>(indices.size());
  out.labels.clear();
  for (const int64_t i : indices) {
    if (i < 0 || i >= source.size()) {
      throw Error(fmt::format("subset: index {} is not below the {} samples of {}", i, source.size(), source.name));
    }
    if (source.has_labels()) out.labels.push_back(source.label(i));
  }
  const auto map = std::make_shared<const std::vector<int64_t>>(std::move(indices));
  out.key = [map, key = source.key](int64_t i) { return key((*map)[static_cast<size_t>(i)]); };
  out.read = [map, read = source.read](int64_t i, double useful_side, Image& image) {
    read((*map)[static_cast<size_t>(i)], useful_side, image);
  };
  return out;
}

Source cached(const Source& source, int64_t max_bytes, double useful_side) {
  struct Cache {
    explicit Cache(int64_t count) : images(static_cast<size_t>(count)) {}
    std::mutex mutex;
    std::vector<std::shared_ptr<const Image>> images;
    int64_t bytes = 0;
  };
  const auto cache = std::make_shared<Cache>(source.size());
  Source out = source;
  out.read = [cache, max_bytes, useful_side, read = source.read](int64_t i, double, Image& image) {
    auto& slot = cache->images[static_cast<size_t>(i)];
    std::shared_ptr<const Image> kept;
    {
      const std::lock_guard lock(cache->mutex);
      kept = slot;
    }
    if (kept) {
      image = *kept;  // copies into the memory that is there
      return;
    }
    read(i, useful_side, image);
    const auto bytes = static_cast<int64_t>(image.pixels.size());
    {
      const std::lock_guard lock(cache->mutex);
      if (slot || cache->bytes + bytes > max_bytes) return;
      cache->bytes += bytes;  // reserved, so that the copy can be made outside the lock
    }
    kept = std::make_shared<const Image>(image);
    const std::lock_guard lock(cache->mutex);
    if (slot) {
      cache->bytes -= bytes;
    } else {
      slot = std::move(kept);
    }
  };
  return out;
}

}  // namespace saccade::data
