#include <fmt/format.h>
#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cmath>

namespace saccade::data {
namespace {

/// `images` and as many black ones behind them as make `count`.
Tensor filled_up(const Tensor& images, int64_t count) {
  const Segment s = images.segments().front();
  if (s.n == count) return images;
  const DeviceScope there(images.device());
  Tensor all = Tensor::images({{count, s.h, s.w}}, images.dim(1));
  all.fill(0.f);
  all.slice(0, images.dim(0)).copy_from(images);
  return all;
}

Tensor image_of(const Tensor& images, int64_t n) {
  const Segment s = images.segments().front();
  return images.slice(n * s.h * s.w, (n + 1) * s.h * s.w).with_segments({{1, s.h, s.w}});
}

bool is_finite(const Tensor& row) {
  const Tensor here = row.to(Device::cpu).to(DType::f32);
  return std::ranges::all_of(here.data<float>(), [](float v) { return std::isfinite(v); });
}

}  // namespace

std::string_view name_of(ViewRule rule) { return rule == ViewRule::middle ? "middle" : "whole"; }

ViewRule view_rule_of(std::string_view word) {
  for (const ViewRule rule : {ViewRule::middle, ViewRule::whole})
    if (word == name_of(rule)) return rule;
  throw Error(fmt::format("view \"{}\": expected middle or whole", word));
}

ViewRule choose_view_rule(const Source& source, int size) {
  constexpr int64_t most = 64;
  const int64_t count = std::min(most, source.size());
  int64_t readable = 0;
  Image image;
  for (int64_t i = 0; i < count; ++i) {
    try {
      source.read(i * source.size() / count, 0, image);
    } catch (const Error&) {
      continue;  // whoever reads all of them lists it
    }
    if (image.height != size || image.width != size) return ViewRule::middle;
    ++readable;
  }
  return readable > 0 ? ViewRule::whole : ViewRule::middle;
}

EvalView eval_view(ViewRule rule, int size) {
  return {.resize = (size * 8 + 6) / 7, .size = size, .whole = rule == ViewRule::whole};
}

Rows compute_rows(const Source& source, const EvalView& view,
                  const std::function<Tensor(const Tensor& images)>& compute, LoaderOptions loading,
                  const std::function<std::string(const Tensor& image)>& explain) {
  const int64_t together = loading.batch;
  loading.shuffle = loading.drop_last = loading.bytes = false;
  loading.max_unreadable = 1;
  loading.batch = static_cast<int>(std::min<int64_t>(together, std::max<int64_t>(source.size(), 1)));
  Loader loader(source, view, loading);
  Rows out;
  Tensor all;
  for (int64_t first = 0; first < source.size();) {
    const Batch batch = loader.next();
    const Tensor rows = compute(filled_up(batch.images, together));
    const DeviceScope there(rows.device());
    if (!all.defined()) all = Tensor::empty({source.size(), rows.dim(1)}, rows.dtype());
    for (int64_t b = 0; b < batch.size(); ++b) {
      const auto at = static_cast<size_t>(b);
      if (batch.indices[at] != first + b) continue;  // another stands in for one that cannot be read
      const Tensor row = rows.slice(b, b + 1);
      if (!is_finite(row)) {
        const std::string why = explain ? explain(image_of(batch.images, b)) : "";
        throw Error(fmt::format("{}: what is computed of it is not finite{}{}", source.key(batch.indices[at]),
                                why.empty() ? "" : ": ", why));
      }
      const auto to = static_cast<int64_t>(out.indices.size());
      all.slice(to, to + 1).copy_from(row);
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
