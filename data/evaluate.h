#pragma once

#include <saccade/core/tensor.h>
#include <saccade/data/loader.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace saccade::data {

/// The view for evaluating at size x size pixels: the middle of the image scaled so that 7/8 of its shorter side are
/// seen; photos that have that very size (as those of an IDX file) are taken whole. The first sample that can be read
/// decides for all.
EvalView eval_view(const Source& source, int size);

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
/// features of a network, say.
/// @param loading  batch and workers are heeded
Rows compute_rows(const Source& source, const EvalView& view,
                  const std::function<Tensor(const Tensor& images)>& compute, LoaderOptions loading = {});

}  // namespace saccade::data
