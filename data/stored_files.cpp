#include <saccade/data/files.h>
#include <sys/stat.h>

#include <utility>

namespace saccade::data {

std::vector<StoredFile> stored_files(const std::string& folder, int64_t count,
                                     const std::function<std::string(int64_t)>& path_of) {
  const std::string start = folder + "/";
  std::vector<StoredFile> files(static_cast<size_t>(count));
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    std::string path = path_of(i);
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) files[static_cast<size_t>(i)].bytes = info.st_size;
    if (path.starts_with(start)) path.erase(0, start.size());
    files[static_cast<size_t>(i)].name = std::move(path);
  }
  return files;
}

}  // namespace saccade::data
