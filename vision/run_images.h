#pragma once

#include <saccade/data/fingerprint.h>
#include <saccade/data/source.h>
#include <saccade/ssl/report/run_folder.h>

#include <filesystem>
#include <string>

/// @file
/// The images that a run was started with, and those that it finds when it goes on.

namespace saccade::vision {

struct RunImages {
  data::Fingerprint now;
  bool has_changed = false;  ///< since the last sitting, which was accepted
  std::string notice;        ///< what there is to say of it; may be empty

  /// Writes down which they are, into the run's folder.
  void store(const ssl::RunFolder& folder) const;
};

struct RunImagesOptions {
  bool fresh = false;           ///< the run starts over: nothing is compared
  bool accept_changed = false;  ///< other images are taken; the result is then not that of an unbroken run
  /// How a user of the program accepts them, for the sentence that refuses.
  std::string how_to_accept = "RunImagesOptions::accept_changed";
  std::string path_before = {};  ///< where the images lay, if nothing in the run's folder says which they were
};

/// Looks whether a source has the images that a run was started with: by the names and sizes of its files. Where no
/// run stands in the folder that can go on, there is nothing to compare.
/// @param run   the run's folder
/// @param path  that the source was opened with
/// Throws Error, with what was added, removed or replaced, when they are others and that is not accepted.
RunImages compare_images(const std::filesystem::path& run, const data::Source& source, const std::string& path,
                         const RunImagesOptions& options = {});

}  // namespace saccade::vision
