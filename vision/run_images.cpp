#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/input_file.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>
#include <saccade/vision/run_images.h>

namespace saccade::vision {

void RunImages::store(const ssl::RunFolder& folder) const {
  io::write_file_atomically(folder.data(), data::to_text(now, ssl::RunFolder::kDataStart));
}

RunImages compare_images(const std::filesystem::path& run, const data::Source& source, const std::string& path,
                         const RunImagesOptions& options) {
  RunImages images{.now = data::fingerprint(source, path), .has_changed = false, .notice = ""};
  data::Fingerprint& now = images.now;
  if (options.fresh || !ssl::RunFolder::holds_checkpoint(run)) return images;
  const std::filesystem::path list = run / "data.tsv";
  std::string change, before;
  if (std::filesystem::exists(list)) {
    const io::InputFile file(list);
    std::string text(file.size(), '\0');
    file.read(0, text.data(), text.size());
    const data::Fingerprint was = data::parse_fingerprint(text, list.string());
    now.was_changed = was.was_changed;
    before = was.path;
    const data::Changes found = data::changes(was, now);
    if (found.any() || was.images != now.images)
      change = fmt::format("{} images then, {} now{}", was.images, now.images, found.any() ? ": " + found.words() : "");
  } else {  // an earlier version knew only where they lie
    std::error_code none;
    before = options.path_before;
    if (std::filesystem::equivalent(before, path, none))
      before = now.path;
    else
      change = "which lay elsewhere, and were not written down";
  }
  if (!change.empty() && !options.accept_changed)
    throw Error(
        fmt::format("the images of {} are not those that {} was started with{} ({}). Take those, start another "
                    "run in another folder, or go on with {}: the result is then not that of an unbroken run.",
                    data::printable(path), run.string(), before == now.path ? "" : ", in " + data::printable(before),
                    change, options.how_to_accept));
  if (!change.empty()) {
    now.was_changed = images.has_changed = true;
    images.notice = fmt::format(
        "The images have changed ({}), which was accepted: from here on the bits are no longer those "
        "of an unbroken run.",
        change);
  } else if (before != now.path) {
    images.notice = fmt::format("The images have moved from {} to {} and are the same by name and size.",
                                data::printable(before), data::printable(now.path));
  }
  return images;
}

}  // namespace saccade::vision
