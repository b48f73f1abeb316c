#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <algorithm>

namespace saccade::data {

namespace {

/// The samples that have a label.
Source labelled(const Source& source) {
  std::vector<int64_t> with_label;
  for (int64_t i = 0; i < source.size(); ++i)
    if (source.label(i) >= 0) with_label.push_back(i);
  if (with_label.empty()) {
    throw Error(source.name +
                ": there are no labels to evaluate with; put the images of each class into a folder of its own, or "
                "give a folder of IDX files with their labels");
  }
  return std::ssize(with_label) == source.size() ? source : subset(source, std::move(with_label));
}

}  // namespace

LabelledPair labelled_pair(const std::string& train_path, const std::string& test_path, int channels) {
  LabelledPair pair{.train = labelled(open_source(train_path, true, channels)),
                    .test = labelled(open_source(test_path.empty() ? train_path : test_path, false, channels))};
  if (test_path.empty() && pair.train.name == pair.test.name) {
    std::vector<int64_t> kept, held_out;
    for (int64_t i = 0; i < pair.train.size(); ++i) (i % 5 == 4 ? held_out : kept).push_back(i);
    if (held_out.empty()) throw Error(pair.train.name + ": too few labelled images to hold some out for judging");
    pair.test = subset(pair.train, held_out);
    pair.train = subset(pair.train, kept);
  }
  // Folders number their classes each by itself.
  const std::vector<std::string>& classes = pair.train.class_names;
  for (int& label : pair.test.labels) {
    const std::string& name = pair.test.class_names[static_cast<size_t>(label)];
    const auto at = std::find(classes.begin(), classes.end(), name);
    if (at == classes.end()) throw Error(pair.test.name + ": class " + name + " does not occur in " + pair.train.name);
    label = static_cast<int>(at - classes.begin());
  }
  pair.test.class_names = classes;
  return pair;
}

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
