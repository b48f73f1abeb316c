#include <saccade/vision/fine_tune.h>

#include <algorithm>
#include <utility>

namespace saccade::vision {

data::MultiCrop mild_crops(const ssl::TrunkInfo& info) {
  data::MultiCrop views{.crops = {{1, info.size, {0.4f, 1.f}}}, .jitter_p = 0, .grayscale_p = 0, .blur_p = 0};
  std::copy_n(info.mean.begin(), 3, views.mean.begin());
  std::copy_n(info.std.begin(), 3, views.std.begin());
  return views;
}

ssl::Classifier fine_tune(std::shared_ptr<nn::Trunk> trunk, const data::Source& labelled, const data::View& views,
                          const ssl::FineTuneOptions& options, data::LoaderOptions loading) {
  loading.batch = static_cast<int>(std::min<int64_t>(loading.batch, labelled.size()));
  data::Loader loader(labelled, views, loading);
  return ssl::fine_tune(
      std::move(trunk), [&](int64_t) { return loader.next(); }, options);
}

}  // namespace saccade::vision
