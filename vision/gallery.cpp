#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/data/augment.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/prototype_gallery.h>
#include <saccade/vision/gallery.h>

#include <algorithm>
#include <filesystem>
#include <vector>

namespace saccade::vision {

ssl::Thumbnail thumbnail(const data::Source& source, int64_t sample, int side) {
  data::Image image;
  source.read(sample, side, image);
  const int square = std::min(image.height, image.width);
  side = std::min(side, square);
  data::Planes planes;
  data::resized_crop(image, {(image.height - square) / 2, (image.width - square) / 2, square, square}, side, side,
                     false, planes);
  ssl::Thumbnail picture{.width = side,
                         .height = side,
                         .channels = planes.channels,
                         .pixels = {},
                         .label = std::filesystem::path(source.key(sample)).filename()};
  for (size_t i = 0; i < planes.plane_size(); ++i)
    for (int c = 0; c < planes.channels; ++c) picture.pixels.push_back(planes.plane(c)[i]);
  return picture;
}

ssl::Gallery prototype_gallery(nn::Module& model, const std::function<Tensor(const Tensor&)>& embed,
                               const Tensor& prototypes, const data::Source& source, const data::EvalView& view,
                               int64_t images) {
  std::vector<int64_t> chosen;
  const int64_t count = std::min(images, source.size());
  for (int64_t i = 0; i < count; ++i) chosen.push_back(i * source.size() / count);
  const data::Source some = data::subset(source, chosen);
  const NoGradScope no_grad;
  const ssl::EvaluationScope evaluation(model);
  const data::Rows found = data::compute_rows(some, view, [&](const Tensor& shown) {
    const DeviceScope there(model.device());
    return embed(shown.to(model.device())).to(Device::cpu);
  });
  ssl::Gallery gallery{.title = "What some prototypes stand for",
                       .note = fmt::format("The nearest of {} images to each prototype, most used first; in brackets, "
                                           "how many images it is the nearest of.",
                                           found.indices.size()),
                       .rows = {}};
  for (const auto& [prototype, nearest_of, rows] : ssl::images_of_prototypes(prototypes, found.rows, 12, 10)) {
    ssl::Gallery::Row row{.name = fmt::format("{} ({})", prototype, nearest_of), .pictures = {}};
    for (const int32_t r : rows) row.pictures.push_back(thumbnail(some, found.indices[static_cast<size_t>(r)], 64));
    gallery.rows.push_back(std::move(row));
  }
  return gallery;
}

}  // namespace saccade::vision
