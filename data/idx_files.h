#pragma once

#include <saccade/data/layout.h>
#include <saccade/data/source.h>

#include <cstdint>
#include <string>
#include <vector>

namespace saccade::data {

/// The extents in the header of an IDX file of unsigned bytes. Throws saccade::Error as idx() does.
std::vector<int64_t> idx_extents(const std::string& path);

/// Gives ten classes that come from a path called after Fashion-MNIST their names.
void name_fashion(Source& source);

/// Images, and the labels that belong to them.
struct IdxHalf {
  Role role = Role::whole;
  std::string images, labels;  ///< paths; no labels: empty
  int64_t count = 0;
  bool gray = true;
};

/// Pairs IDX files, whatever their names: images have three extents or four, labels one, and there are as many of each.
/// Names of files, or of their folders, tell what is to train with (train) and what to test with (test, t10k, val);
/// where they do not, the larger file is to train with. A compressed file beside its plain twin is passed over. None,
/// if there are no images, or no more than `others`, which lie beside them in files of their own. Throws saccade::Error
/// when there are several sets of images for one use.
std::vector<IdxHalf> pair_idx_files(std::vector<std::string> paths, int64_t others = 0);
/// An IDX file of images, with the labels that lie beside it: as many, of a name that fits.
IdxHalf with_labels_beside(const std::string& images);

Source open_idx(const IdxHalf& half, const OpenOptions& options);
/// What is to be learned from of one or two halves, which a line says.
Source open_idx(const std::string& name, const std::vector<IdxHalf>& halves, const OpenOptions& options);

}  // namespace saccade::data
