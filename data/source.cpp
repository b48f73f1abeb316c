#include <fmt/format.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace saccade::data {

Source with_channels(Source source, int channels) {
  if (channels == 0 || channels == source.channels) return source;
  source.channels = channels;
  source.read = [channels, read = source.read](int64_t i, double useful_side, Image& out) {
    read(i, useful_side, out);
    convert_channels(out, channels);
  };
  return source;
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
