#pragma once

#include <saccade/data/listing.h>
#include <saccade/data/source.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

/// What the kinds of sources share: image files, wherever their names come from.
namespace saccade::data {

/// Files with their sizes, named below a folder.
std::vector<StoredFile> stored_files(const std::string& folder, int64_t count,
                                     const std::function<std::string(int64_t)>& path_of);

/// A source of image files.
/// @param folder   that their names are below, for fingerprints
/// @param path_of  called by several threads at once
Source image_files(std::string name, const std::string& folder, int64_t count,
                   std::function<std::string(int64_t)> path_of, const OpenOptions& options);
/// The images of a listing in the order of `files`.
Source image_files(const Listing& listing, std::vector<Listing::File> files, const OpenOptions& options);

/// Gives each sample the class of that name, -1 where it is empty; classes are in code point order. Without any name
/// there are no labels.
void set_classes(Source& source, const std::vector<std::string>& class_of);

/// "1 image", "1203 images".
std::string words_of_count(int64_t images);

/// "1200 .jpg, 3 .png" of some files.
std::string words_of_kinds(const Listing& listing, const std::vector<Listing::File>& files);

/// The images of a listing that has some, with the labels that its layout gives.
Source folder_images(Listing listing, const OpenOptions& options);

/// All images that a table lists, with its labels.
Source table_images(const std::string& path, const OpenOptions& options);

/// Throws the Error that a folder without images deserves.
[[noreturn]] void no_image_in(const Listing& listing);

}  // namespace saccade::data
