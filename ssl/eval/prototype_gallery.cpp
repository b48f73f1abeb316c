#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/prototype_gallery.h>

#include <algorithm>

namespace saccade::ssl {

std::vector<PrototypeImages> images_of_prototypes(const Tensor& prototypes, const Tensor& embeddings, int64_t count,
                                                  int64_t images_each) {
  const Tensor directions = prototypes.to(Device::cpu);
  std::vector<PrototypeImages> all(static_cast<size_t>(prototypes.dim(0)));
  for (size_t k = 0; k < all.size(); ++k) all[k].prototype = static_cast<int64_t>(k);
  for (const int32_t k : nearest(directions, embeddings, 1).index) ++all[static_cast<size_t>(k)].nearest_of;
  std::erase_if(all, [](const PrototypeImages& p) { return p.nearest_of == 0; });
  std::ranges::stable_sort(all, std::ranges::greater{}, &PrototypeImages::nearest_of);

  std::vector<PrototypeImages> chosen;
  std::vector<int64_t> rows;
  const auto used = static_cast<int64_t>(all.size());
  for (int64_t i = 0; i < std::min(count, used); ++i) {
    chosen.push_back(all[static_cast<size_t>(i * used / std::min(count, used))]);
    rows.push_back(chosen.back().prototype);
  }
  const Neighbours found = nearest(embeddings, gather_rows(directions, rows), images_each);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto first = found.index.begin() + static_cast<int64_t>(i) * found.per_query;
    chosen[i].images.assign(first, first + found.per_query);
  }
  return chosen;
}

}  // namespace saccade::ssl
