#pragma once

#include <saccade/data/decode.h>
#include <saccade/data/image.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace saccade::data {

/// A file that samples lie in.
struct StoredFile {
  std::string name;  ///< below the source's folder, of any bytes; whole where it lies elsewhere
  int64_t bytes = 0;
};

/// Where images come from. A value: one of your own is this struct with its functions filled in. Both functions are
/// called by several threads at once.
struct Source {
  std::string name;                      ///< for messages: the folder or file; keys of a folder's samples begin with it
  std::string summary;                   ///< one line: what was taken, and what was passed over, by kind
  int64_t count = 0;                     ///< number of samples
  int channels = 3;                      ///< of every image: 1 or 3
  std::vector<int> labels;               ///< class of each sample, -1 where it has none; empty: no sample has one
  std::vector<std::string> class_names;  ///< of classes 0, 1, ...
  /// A name of sample i that people recognise: the path of its file, with bytes that cannot be printed as \xNN.
  std::function<std::string(int64_t i)> key;
  /// Puts sample i into `out`, whose memory it reuses. `useful_side`: see DecodeOptions; a source may ignore it, but
  /// the pixels must depend on nothing but i and it. Throws saccade::Error when the sample cannot be read.
  std::function<void(int64_t i, double useful_side, Image& out)> read;
  /// The files of all samples, in their order and with their sizes as they are now: see fingerprint(). May be empty.
  std::function<std::vector<StoredFile>()> files;

  int64_t size() const { return count; }
  int label(int64_t i) const { return labels.empty() ? -1 : labels[static_cast<size_t>(i)]; }
  bool has_labels() const { return !labels.empty(); }
  int num_classes() const { return static_cast<int>(class_names.size()); }
};

/// How images are opened.
struct OpenOptions {
  int channels = 3;          ///< 1 or 3: of every image, however it is stored. 0: 3, but as stored for IDX files
  DecodeLimits limits = {};  ///< what a file may cost
  bool exif = true;          ///< turn images as their EXIF orientation says
  /// Told what is odd about an image that was read, in one sentence and each kind once a source; by any thread.
  std::function<void(const std::string& sentence)> remark = {};
};

/// The images of a folder and all folders below it: see Listing for what is an image and what is passed over. If some
/// lie in sub-folders, the first level of these are the classes, numbered in code point order of their names, and
/// images beside them have label -1; if none do, there are no labels. Samples are in order of the first level, then
/// folder, then file name, by code point; a file that links lead to is one sample. Files are opened when they are read.
///
/// Throws saccade::Error when the folder is missing, is no folder, cannot be listed, or holds no image.
Source folder(const std::string& path, const OpenOptions& options = {});

/// An IDX file of unsigned bytes (the format of MNIST), plain or gzipped, wholly in memory: (N, H, W) and
/// (N, H, W, 1) are gray, (N, H, W, 3) colour. `labels_path`, if given: an IDX file of N bytes, the classes.
/// Throws saccade::Error unless the headers are right and the files exactly as long as they say.
Source idx(const std::string& images_path, const std::string& labels_path = "");

/// Fashion-MNIST (or MNIST) in IDX files of the usual names, plain or .gz, in `path`: the 60,000 training photos or the
/// 10,000 test photos. The default is where Debian's package dataset-fashion-mnist puts them.
Source fashion_mnist(const std::string& path = "/usr/share/datasets/fashion-mnist", bool train = true);

/// All images that a path given by a person holds, whatever the sub-folders are called: a folder of images, or of IDX
/// files (those to train with, if they come in two), an IDX file, or a table (CSV, TSV) or list of paths. Labels are
/// those that labelled_pair() would find, where they are clear.
/// Throws saccade::Error when there is nothing such, or a table names files that are missing.
Source open_images(const std::string& path, const OpenOptions& options = {});

/// The same images with 3 equal channels, or the luma of the 3 that they have.
Source with_channels(Source source, int channels);

/// Some samples of a source, in the order given; labels and class names come along.
Source subset(const Source& source, std::vector<int64_t> indices);

/// The same source with its decoded images kept in memory from their first reading on, up to `max_bytes` in all; the
/// rest is read anew each time. `useful_side` applies to every reading, so that what is kept does not depend on who
/// asked first.
Source cached(const Source& source, int64_t max_bytes, double useful_side = 0);

}  // namespace saccade::data
