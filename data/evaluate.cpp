#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <algorithm>

namespace saccade::data {

EvalView eval_view(const Source& source, int size) {
  Image image;
  for (int64_t i = 0; i < source.size(); ++i) {
    try {
      source.read(i, 0, image);
    } catch (const Error&) {
      continue;  // whoever reads all of them lists it
    }
    const bool whole = image.height == size && image.width == size;
    return {.resize = whole ? size : (size * 8 + 6) / 7, .size = size};
  }
  throw Error(source.name + ": none of the images can be read");
}

Rows compute_rows(const Source& source, const EvalView& view,
                  const std::function<Tensor(const Tensor& images)>& compute, LoaderOptions loading) {
  loading.shuffle = loading.drop_last = loading.bytes = false;
  loading.max_unreadable = 1;
  loading.batch = static_cast<int>(std::min<int64_t>(loading.batch, std::max<int64_t>(source.size(), 1)));
  Loader loader(source, view, loading);
  Rows out;
  Tensor all;
  for (int64_t first = 0; first < source.size();) {
    const Batch batch = loader.next();
    const Tensor rows = compute(batch.images);
    const DeviceScope there(rows.device());
    if (!all.defined()) all = Tensor::empty({source.size(), rows.dim(1)}, rows.dtype());
    for (int64_t b = 0; b < batch.size(); ++b) {
      const auto at = static_cast<size_t>(b);
      if (batch.indices[at] != first + b) continue;  // another stands in for one that cannot be read
      const auto to = static_cast<int64_t>(out.indices.size());
      all.slice(to, to + 1).copy_from(rows.slice(b, b + 1));
      out.indices.push_back(batch.indices[at]);
      out.labels.push_back(batch.labels[at]);
    }
    first += batch.size();
  }
  out.rows = all.slice(0, static_cast<int64_t>(out.indices.size()));
  out.failures = loader.failures();
  return out;
}

}  // namespace saccade::data
