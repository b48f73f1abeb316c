#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/file_kind.h>
#include <saccade/data/listing.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <tuple>

namespace saccade::data {
namespace {

/// Device and number of a file.
using Identity = std::pair<uint64_t, uint64_t>;

class Walk {
 public:
  explicit Walk(Listing& listing) : listing_(listing) {}

  void run() {
    note_folders_around();
    pending_.push_back({"", -1, nullptr});
    while (!pending_.empty()) {  // a stack of its own: trees are as deep as they like
      const Pending at = std::move(pending_.back());
      pending_.pop_back();
      list(at);
    }
    sort();
  }

 private:
  /// What was visited by way of one link that lies in the tree itself. Each has a record of its own, so that folders
  /// made of links, one to train and one to test with, hold what they seem to, and yet nothing is run through twice.
  using Visited = std::shared_ptr<std::set<Identity>>;
  struct Pending {
    std::string path;  // below the root
    int32_t parent;    // the folder it lies in
    Visited visited;   // none where no link led
  };

  /// A link to a folder that the root lies in would lead back here, by way of everything beside it.
  void note_folders_around() {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(listing_.root.c_str(), nullptr), &std::free);
    if (!real) return;
    for (std::string path = real.get(); path.size() > 1;) {
      path.resize(std::max<size_t>(path.rfind('/'), 1));
      struct stat info {};
      if (::stat(path.c_str(), &info) == 0) around_.emplace(info.st_dev, info.st_ino);
    }
  }

  void list(const Pending& at) {
    const std::string path = at.path.empty() ? listing_.root + "/" : listing_.root + "/" + at.path;
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), &::closedir);
    struct stat info {};
    if (!folder || ::fstat(::dirfd(folder.get()), &info) != 0) return cannot_list(at);
    const Identity identity{info.st_dev, info.st_ino};
    if (at.visited && (around_.contains(identity) || !at.visited->insert(identity).second))
      return listing_.passed_over.add("linked in a circle");
    const auto index = static_cast<int32_t>(listing_.folders.size());
    listing_.folders.push_back(at.path);
    places_.push_back({identity, at.parent});
    Here here{at, index, path.size(), ::dirfd(folder.get()), {}};
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(folder.get());
      if (entry == nullptr) break;
      take(here, *entry);
    }
    if (errno != 0) cannot_list(at);
    // The last pushed is listed first.
    std::sort(here.below.begin(), here.below.end(), [](const Pending& a, const Pending& b) { return a.path > b.path; });
    std::move(here.below.begin(), here.below.end(), std::back_inserter(pending_));
  }

  void cannot_list(const Pending& at) {
    const int reason = errno;
    if (at.path.empty()) {
      if (reason == ENOENT) throw Error(fmt::format("{}: there is no such folder", printable(listing_.root)));
      if (reason == ENOTDIR) throw Error(fmt::format("{}: is no folder", printable(listing_.root)));
      throw Error(fmt::format("{}: the folder cannot be listed: {}", printable(listing_.root), std::strerror(reason)));
    }
    listing_.closed.emplace_back(at.path, std::strerror(reason));
  }

  /// The folder being listed.
  struct Here {
    const Pending& at;
    int32_t index;
    size_t path_length;
    int fd;
    std::vector<Pending> below;
  };

  void take(Here& here, const dirent& entry) {
    const std::string_view name = entry.d_name;
    if (name == "." || name == "..") return;
    if (name[0] == '.') return listing_.passed_over.add("hidden");
    if (is_system_name(name)) return listing_.passed_over.add(name);
    if (here.path_length + 1 + name.size() >= PATH_MAX) return listing_.passed_over.add("of too long a path");

    Identity identity{places_.back().identity.first, entry.d_ino};
    bool is_folder = entry.d_type == DT_DIR, is_file = entry.d_type == DT_REG, is_link = entry.d_type == DT_LNK;
    const auto look = [&](int flags) {
      struct stat info {};
      if (::fstatat(here.fd, entry.d_name, &info, flags) != 0) return false;
      is_folder = S_ISDIR(info.st_mode);
      is_file = S_ISREG(info.st_mode);
      is_link = S_ISLNK(info.st_mode);
      identity = {info.st_dev, info.st_ino};
      return true;
    };
    if (entry.d_type == DT_UNKNOWN && !look(AT_SYMLINK_NOFOLLOW))
      return listing_.passed_over.add("gone while it was listed");
    const bool by_link = is_link;
    if (is_link && !look(0)) return listing_.passed_over.add("behind a broken link");

    if (is_folder) {
      std::string path = here.at.path.empty() ? std::string(name) : here.at.path + "/" + std::string(name);
      here.below.push_back({std::move(path), here.index, by_link ? visited_from(here) : here.at.visited});
    } else if (is_file) {
      take_file(here, {.folder = here.index,
                       .kind = 0,
                       .linked = by_link || here.at.visited != nullptr,
                       .dev = identity.first,
                       .ino = identity.second,
                       .name = std::string(name)});
    } else {
      listing_.passed_over.add("no regular file");
    }
  }

  /// The record for a link in this folder: within what a link led to it is that link's, else a new one that knows all
  /// folders around the link.
  Visited visited_from(const Here& here) const {
    if (here.at.visited) return here.at.visited;
    auto visited = std::make_shared<std::set<Identity>>();
    for (int32_t i = here.index; i >= 0; i = places_[static_cast<size_t>(i)].parent)
      visited->insert(places_[static_cast<size_t>(i)].identity);
    return visited;
  }

  void take_file(const Here& here, Listing::File file) {
    const FileKind found = kind_of_file(here.fd, file.name);
    if (found.what == FileKind::What::undecodable) return listing_.undecodable.add(found.words);
    if (found.what == FileKind::What::other) return listing_.passed_over.add(found.words);
    file.kind = kind(found.words);
    (found.what == FileKind::What::image ? listing_.images : listing_.idx_files).push_back(std::move(file));
  }

  int32_t kind(const std::string& name) {
    const auto [at, is_new] = kinds_.emplace(name, static_cast<int32_t>(listing_.kinds.size()));
    if (is_new) listing_.kinds.push_back(name);
    return at->second;
  }

  void sort() {
    const auto& folders = listing_.folders;
    std::vector<int32_t> order(folders.size()), rank(folders.size());
    std::iota(order.begin(), order.end(), 0);
    const auto first_name = [](std::string_view path) { return path.substr(0, path.find('/')); };
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const std::string_view one = folders[static_cast<size_t>(a)], other = folders[static_cast<size_t>(b)];
      return std::make_pair(first_name(one), one) < std::make_pair(first_name(other), other);
    });
    std::vector<std::string> sorted;
    for (size_t i = 0; i < order.size(); ++i) {
      rank[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
      sorted.push_back(folders[static_cast<size_t>(order[i])]);
    }
    listing_.folders = std::move(sorted);
    for (auto* files : {&listing_.images, &listing_.idx_files}) {
      for (Listing::File& file : *files) file.folder = rank[static_cast<size_t>(file.folder)];
      std::sort(files->begin(), files->end(), [](const Listing::File& a, const Listing::File& b) {
        return std::tie(a.folder, a.name) < std::tie(b.folder, b.name);
      });
    }
    std::sort(listing_.closed.begin(), listing_.closed.end());
  }

  struct Place {
    Identity identity;
    int32_t parent;
  };
  Listing& listing_;
  std::vector<Pending> pending_;
  std::vector<Place> places_;  // of each folder listed
  std::set<Identity> around_;
  std::map<std::string, int32_t> kinds_;
};

}  // namespace

std::string Listing::path_of(const File& file) const {
  const std::string& folder = folders[static_cast<size_t>(file.folder)];
  return root + "/" + folder + (folder.empty() ? "" : "/") + file.name;
}

Listing list_tree(const std::string& root) {
  Listing listing;
  listing.root = root;
  while (listing.root.ends_with('/')) listing.root.pop_back();
  if (root.empty()) throw Error("the name of a folder is empty");
  Walk(listing).run();
  return listing;
}

int64_t drop_repeats(const Listing& listing, std::vector<Listing::File>& files) {
  const size_t before = files.size();
  if (std::none_of(files.begin(), files.end(), [](const Listing::File& f) { return f.linked; })) return 0;
  // A file system that is laid over others may number its files twice; what is dropped is looked at once more.
  const auto is_same = [&](const Listing::File& a, const Listing::File& b) {
    struct stat one {
    }, other{};
    return ::stat(listing.path_of(a).c_str(), &one) == 0 && ::stat(listing.path_of(b).c_str(), &other) == 0 &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
  };
  std::map<Identity, const Listing::File*> first;
  for (const bool linked : {false, true}) {
    for (const Listing::File& file : files)
      if (file.linked == linked) first.emplace(Identity{file.dev, file.ino}, &file);
  }
  std::vector<Listing::File> kept;
  for (const Listing::File& file : files) {
    const Listing::File* other = first.at({file.dev, file.ino});
    if (!file.linked || other == &file || !is_same(file, *other)) kept.push_back(file);
  }
  files = std::move(kept);
  return static_cast<int64_t>(before - files.size());
}

std::string words_of_rest(const Listing& listing) {
  std::vector<std::string> parts;
  if (!listing.passed_over.empty()) parts.push_back("passed over: " + listing.passed_over.words());
  if (!listing.undecodable.empty())
    parts.push_back(
        fmt::format("of formats that are not read (convert them to JPEG or PNG): {}", listing.undecodable.words()));
  if (!listing.closed.empty()) {
    std::string names;
    const size_t shown = std::min<size_t>(listing.closed.size(), 3);
    for (size_t i = 0; i < shown; ++i) {
      const auto& [path, reason] = listing.closed[i];
      names += fmt::format("{}{} ({})", i == 0 ? "" : ", ", printable(path.substr(0, 200)), reason);
    }
    if (listing.closed.size() > shown) names += fmt::format(" and {} others", listing.closed.size() - shown);
    parts.push_back("folders that cannot be listed: " + names);
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace saccade::data
