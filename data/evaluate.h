#pragma once

#include <saccade/core/tensor.h>
#include <saccade/data/eval_view.h>
#include <saccade/data/loader.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// How an image of any shape is brought to size x size pixels for evaluation. It belongs to a network, as its size
/// does: what a network sees of an image depends on no other image.
enum class ViewRule : uint8_t {
  middle,  ///< the shorter side scaled to 8/7 of the size, then the middle
  whole,   ///< all of it scaled to the size: for images that have the network's size, as those of an IDX file
};
/// "middle", "whole".
std::string_view name_of(ViewRule rule);
/// Throws saccade::Error on any other word.
ViewRule view_rule_of(std::string_view word);

/// The rule for a network that learns from these images in crops of that size: whole if those of an evenly spaced
/// sample of 64 at most that can be read all have exactly that size, else middle.
ViewRule choose_view_rule(const Source& source, int size);

/// The view by a rule, with ImageNet's mean and deviation.
EvalView eval_view(ViewRule rule, int size);

/// Labelled samples to learn from and others to be judged by. Both have the classes of `train`, by name.
struct LabelledPair {
  Source train, test;
  std::string summary;  ///< one line: which folders became what, with which classes, and what was left out
};

/// Opens what two paths hold, each a folder with a folder for each class, a folder of IDX files with their labels, or a
/// table (CSV, TSV) of paths and labels. Samples that have no label are left out. Sub-folders that are splits by their
/// names (train, val, test and the like) are taken as that; of several to be judged by, "test" is taken before "val",
/// and what has labels before what has none. With one path that does not come in two, every fifth sample is kept to
/// judge by.
/// Throws Error when there are no labels or those of a single class, when a class to be judged is none of those
/// learned, or when all that is to be judged is to be learned from.
LabelledPair labelled_pair(const std::string& train_path, const std::string& test_path = "",
                           const OpenOptions& options = {});

/// One row for each sample that could be read.
struct Rows {
  Tensor rows;                    ///< (n, D), in the order of the source
  std::vector<int64_t> indices;   ///< the sample of each row
  std::vector<int> labels;        ///< of the samples, -1 where there is none
  std::vector<Failure> failures;  ///< the samples that have no row
};

/// Runs all samples of a source through `compute`, which turns an image tensor of n images into rows (n, D): the
/// features of a network, say. `compute` is always given loading.batch images, black ones in place of those that are
/// not there, because kernels may add up in another order for another number of images: so a row has the bits that it
/// has for its image alone. Throws saccade::Error when a row holds a value that is not finite, with the image's name.
/// @param loading  batch and workers are heeded
/// @param explain  given such an image alone (a tensor of one), says where the value comes from, for that sentence
Rows compute_rows(const Source& source, const EvalView& view,
                  const std::function<Tensor(const Tensor& images)>& compute, LoaderOptions loading = {},
                  const std::function<std::string(const Tensor& image)>& explain = {});

}  // namespace saccade::data
