#include <saccade/ssl/methods/crop_major.h>

namespace saccade::ssl {

Tensor take_images(const Tensor& all, int64_t crops, int64_t first, int64_t last) {
  const DeviceScope device(all.device());
  const int64_t images = all.dim(0) / crops, size = last - first;
  Tensor part = Tensor::empty({crops * size, all.dim(1)}, all.dtype());
  for (int64_t crop = 0; crop < crops; ++crop)
    part.slice(crop * size, (crop + 1) * size).copy_from(all.slice(crop * images + first, crop * images + last));
  return part;
}

void put_images(const Tensor& all, int64_t crops, int64_t first, const Tensor& part, int64_t images) {
  const int64_t of_all = all.dim(0) / crops;
  for (int64_t crop = 0; crop < crops; ++crop)
    all.slice(crop * of_all + first, crop * of_all + first + images)
        .copy_from(part.slice(crop * images, (crop + 1) * images));
}

}  // namespace saccade::ssl
