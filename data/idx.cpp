#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/files.h>
#include <saccade/data/idx_files.h>
#include <saccade/data/printable.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace saccade::data {
namespace {

constexpr int64_t kMaxBytes = int64_t{16} << 30;

struct IdxFile {
  std::vector<int64_t> extents;
  std::vector<uint8_t> values;
};

struct GzClose {
  void operator()(gzFile file) const { gzclose(file); }
};

/// Reads what may be compressed.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(printable(path)) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored))
      throw Error(fmt::format("{}: is a folder, expected an IDX file", path_));
    file_.reset(gzopen(path.c_str(), "rb"));  // reads what is not compressed as it is
    if (!file_) throw Error(fmt::format("{}: cannot be opened", path_));
    // Room for a small file is soon there; an unknown size counts as large. zlib 1.3.2 takes a file for one that is cut
    // off when the last of it just fills the buffer.
    const uintmax_t bytes = std::filesystem::file_size(path, ignored);
    const uintmax_t room = std::clamp<uintmax_t>(bytes, 1 << 12, 1 << 18);
    gzbuffer(file_.get(), static_cast<unsigned>(bytes % room == 0 ? room + 1 : room));
  }
  size_t read(uint8_t* to, size_t count) {
    const int got = gzread(file_.get(), to, static_cast<unsigned>(count));
    int status = Z_OK;
    const char* message = gzerror(file_.get(), &status);
    if (got < 0 || (status != Z_OK && status != Z_STREAM_END)) {
      throw Error(fmt::format("{}: the compressed data is corrupt or ends too early ({})", path_, message));
    }
    return static_cast<size_t>(got);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::unique_ptr<gzFile_s, GzClose> file_;
};

/// Big endian: two zero bytes, the type (8: unsigned byte), the number of extents, each extent in 4 bytes, the values.
std::vector<int64_t> read_extents(Reader& file) {
  const std::string& path = file.path();
  uint8_t header[4];
  if (file.read(header, 4) != 4) throw Error(fmt::format("{}: ends within its header", path));
  if (header[0] != 0 || header[1] != 0) throw Error(fmt::format("{}: is no IDX file", path));
  if (header[2] != 8)
    throw Error(fmt::format("{}: IDX type {:#x} is not supported, only unsigned bytes (0x8)", path, header[2]));
  if (header[3] < 1 || header[3] > 4) throw Error(fmt::format("{}: expected 1 to 4 extents, got {}", path, header[3]));
  std::vector<int64_t> extents;
  int64_t total = 1;
  for (int i = 0; i < header[3]; ++i) {
    uint8_t word[4];
    if (file.read(word, 4) != 4) throw Error(fmt::format("{}: ends within its header", path));
    const int64_t extent = int64_t{word[0]} << 24 | word[1] << 16 | word[2] << 8 | word[3];
    if (extent == 0 || extent > kMaxBytes / total) {
      throw Error(fmt::format("{}: extent {} of {} is zero or too large", path, i, extent));
    }
    total *= extent;
    extents.push_back(extent);
  }
  return extents;
}

IdxFile read_idx(const std::string& given_path) {
  Reader file(given_path);
  const std::string& path = file.path();
  IdxFile out{read_extents(file), {}};
  int64_t total = 1;
  for (const int64_t extent : out.extents) total *= extent;
  // Grows with what is there, so that a header alone cannot ask for gigabytes, or cost the time to clear megabytes.
  while (static_cast<int64_t>(out.values.size()) < total) {
    const size_t before = out.values.size();
    const int64_t more = std::clamp<int64_t>(static_cast<int64_t>(before), int64_t{64} << 10, int64_t{16} << 20);
    out.values.resize(static_cast<size_t>(std::min(total, static_cast<int64_t>(before) + more)));
    const size_t wanted = out.values.size() - before, got = file.read(out.values.data() + before, wanted);
    if (got < wanted) {
      throw Error(fmt::format("{}: the header says {} values, the file has {}", path, total, before + got));
    }
  }
  uint8_t extra;
  if (file.read(&extra, 1) != 0) throw Error(fmt::format("{}: goes on after the {} values of its header", path, total));
  return out;
}

std::string find(const std::filesystem::path& folder, const std::string& name) {
  for (const char* suffix : {"", ".gz"}) {
    std::string path = (folder / (name + suffix)).string();
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored)) return path;
  }
  throw Error(fmt::format("{}: has neither {} nor {}.gz (Debian's package dataset-fashion-mnist brings them)",
                          folder.string(), name, name));
}

}  // namespace

std::vector<int64_t> idx_extents(const std::string& path) {
  Reader file(path);
  return read_extents(file);
}

Source idx(const std::string& images_path, const std::string& labels_path) {
  auto images = std::make_shared<IdxFile>(read_idx(images_path));
  const auto& extents = images->extents;
  const bool gray = extents.size() == 3 || (extents.size() == 4 && extents[3] == 1);
  const bool colour = extents.size() == 4 && extents[3] == 3;
  if (!gray && !colour) {
    throw Error(fmt::format("{}: expected images of (N, H, W) or (N, H, W, 1 or 3), got extents ({})",
                            printable(images_path), fmt::join(extents, ", ")));
  }
  if (extents[1] > 65535 || extents[2] > 65535)
    throw Error(fmt::format("{}: images of {} x {} are too large", printable(images_path), extents[1], extents[2]));
  Source source;
  source.name = printable(images_path);
  source.count = extents[0];
  source.channels = gray ? 1 : 3;
  if (!labels_path.empty()) {
    const IdxFile labels = read_idx(labels_path);
    if (labels.extents.size() != 1 || labels.extents[0] != source.count) {
      throw Error(fmt::format("{}: expected {} labels, got extents ({})", printable(labels_path), source.count,
                              fmt::join(labels.extents, ", ")));
    }
    source.labels.assign(labels.values.begin(), labels.values.end());
    const int classes = *std::max_element(labels.values.begin(), labels.values.end()) + 1;
    for (int i = 0; i < classes; ++i) source.class_names.push_back(std::to_string(i));
  }
  source.summary = fmt::format("{}: {} {} images of {} x {} pixels", source.name, source.count,
                               gray ? "gray" : "colour", extents[2], extents[1]);
  source.key = [name = source.name](int64_t i) { return fmt::format("{}[{}]", name, i); };
  source.files = [images_path] {
    const std::filesystem::path folder = std::filesystem::path(images_path).parent_path();
    return stored_files(folder.string(), 1, [&](int64_t) { return images_path; });
  };
  source.read = [images, channels = source.channels](int64_t i, double, Image& out) {
    out.resize(static_cast<int>(images->extents[1]), static_cast<int>(images->extents[2]), channels);
    std::copy_n(images->values.data() + static_cast<size_t>(i) * out.pixels.size(), out.pixels.size(),
                out.pixels.data());
  };
  return source;
}

void name_fashion(Source& source) {
  std::string name = source.name;
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (name.find("fashion") != std::string::npos && source.num_classes() == 10) {
    source.class_names = {"T-shirt", "trousers", "pullover", "dress", "coat",
                          "sandal",  "shirt",    "sneaker",  "bag",   "boot"};
  }
}

Source fashion_mnist(const std::string& path, bool train) {
  const std::string half = train ? "train" : "t10k";
  Source source = idx(find(path, half + "-images-idx3-ubyte"), find(path, half + "-labels-idx1-ubyte"));
  name_fashion(source);
  return source;
}

}  // namespace saccade::data
