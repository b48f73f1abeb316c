#include <fmt/format.h>
#include <saccade/core/io/foreign_file.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace saccade::io {
namespace {

namespace fs = std::filesystem;
using namespace std::string_view_literals;  // the literals hold zeros

struct Magic {
  size_t at;
  std::string_view bytes, is;
};

// The first that fits decides.
constexpr Magic kMagics[] = {
    {0, "version https://git-lfs"sv, "a git-lfs pointer, not the file itself: fetch that with git lfs pull"},
    {0, "\x93NUMPY"sv,
     "one NumPy array without a name: in Python, safetensors.numpy.save_file({\"name\": numpy.load(FILE), ...}, "
     "\"model.safetensors\")"},
    {0, "\x89HDF\r\n\x1a\n"sv,
     "an HDF5 file (Keras, h5py): in Python, read its arrays with h5py and write them under PyTorch's names with "
     "safetensors.numpy.save_file"},
    {0, "GGUF"sv, "a GGUF file, whose weights are mostly quantized: take the .safetensors it was made from"},
    {0, "ggml"sv, "a GGML file, whose weights are mostly quantized: take the .safetensors it was made from"},
    {4, "TFL3"sv, "a TensorFlow Lite model: take the weights it was made from"},
    {0, "\x1f\x8b"sv, "compressed by gzip: unpack it with gunzip, or tar -xzf"},
    {0, "BZh"sv, "compressed by bzip2: unpack it with bunzip2, or tar -xjf"},
    {0, "\xfd\x37zXZ\0"sv, "compressed by xz: unpack it with unxz, or tar -xJf"},
    {0, "\x28\xb5\x2f\xfd"sv, "compressed by zstd: unpack it with unzstd"},
    {0, "\x04\x22\x4d\x18"sv, "compressed by lz4: unpack it with unlz4"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive: unpack it"},
    {0, "Rar!"sv, "a RAR archive: unpack it"},
    {0, "\x89PNG"sv, "a PNG image, not weights"},
    {0, "\xff\xd8\xff"sv, "a JPEG image, not weights"},
    {0, "GIF8"sv, "a GIF image, not weights"},
    {0, "%PDF"sv, "a PDF document, not weights"},
    {0,
     "\x7f"
     "ELF"sv,
     "a program or library, not weights"},
    {0, "\0\5\x16\7"sv, "a Mac's AppleDouble file: delete it, the weights are in the file without ._"},
    {0, "SQLite format 3"sv, "an SQLite database, not weights"},
    {0, "PAR1"sv, "a Parquet table, not weights"},
    {0, "MATLAB 5.0 MAT-file"sv,
     "a MATLAB file: in Python, scipy.io.loadmat reads it; write its arrays under PyTorch's names with "
     "safetensors.numpy.save_file"},
    {0, "#!"sv, "a script, not weights"},
};

constexpr size_t kStart = 1024;

bool starts_with_ignoring_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() && std::equal(start.begin(), start.end(), text.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

/// Python that keeps tensors and takes nothing else along.
constexpr std::string_view kDistributed =
    "part of a distributed checkpoint (torch.distributed.checkpoint): python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth";

/// Tar's header of the first file has its name first and "ustar" at byte 257; before 1988 a checksum only.
std::string tar(const ByteSource& source, std::string_view start) {
  if (start.size() < 512) return "";
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<uint8_t>(start[i]);
  unsigned given = 0;
  for (size_t i = 148; i < 156; ++i)
    if (start[i] >= '0' && start[i] <= '7') given = given * 8 + static_cast<unsigned>(start[i] - '0');
  if (start.substr(257, 5) != "ustar" && (given != sum || given == 0)) return "";
  // The files' names, one header after the other.
  for (uint64_t at = 0, files = 0; at + 512 <= source.size() && files < 8; ++files) {
    const std::string header = source.text(at, 512);
    const std::string_view name = std::string_view(header).substr(0, std::min(header.find('\0'), size_t{100}));
    if (name == "sys_info" || name == "pickle" || name == "storages" || name == "tensors" ||
        name.ends_with("/sys_info") || name.ends_with("/storages"))
      return "a tar archive as PyTorch 0.1 saved it: in Python, with a PyTorch before 2.6, "
             "torch.save(torch.load(FILE), "
             "\"weights.pth\")";
    uint64_t size = 0;
    for (size_t i = 124; i < 136; ++i)
      if (header[i] >= '0' && header[i] <= '7') size = size * 8 + static_cast<uint64_t>(header[i] - '0');
    at += 512 + (size + 511) / 512 * 512;
  }
  return "a tar archive: unpack it with tar -xf and give the file of weights in it";
}

std::string text_format(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  for (const std::string_view tag : {"<!doctype html", "<html", "<head", "<body", "<script"})
    if (starts_with_ignoring_case(text, tag))
      return "a web page: the download went wrong (a login, or a page about the file); download the file itself";
  if (text.starts_with("<?xml") || text.starts_with("<Error"))
    return "XML, most likely a server's message in place of the file: download it again";
  if (text.starts_with('{') || text.starts_with('['))
    return "JSON, which describes weights at most: give the file of weights, .safetensors or .pth, or the folder";
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\r' || c == '\t';
  });
  return plain ? "text, not weights" : "";
}

/// Protocol buffers have no magic number: ONNX begins with its version (field 1), then comes the producer's name, a
/// domain or the graph.
bool is_onnx(std::string_view start, const fs::path& path) {
  if (start.size() < 4 || start[0] != 0x08 || start[1] < 1 || start[1] > 32) return false;
  return path.extension() == ".onnx" || start[2] == 0x12 || start[2] == 0x3a;
}

bool is_any_of(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

std::string foreign_file(const ByteSource& source, const fs::path& path) {
  if (source.size() == 0) return "empty: fetch or copy it again";
  const std::string start = source.text(0, static_cast<size_t>(std::min<uint64_t>(source.size(), kStart)));
  const std::string_view view = start;
  if (path.extension() == ".distcp") return std::string(kDistributed);
  for (const Magic& magic : kMagics)
    if (view.size() >= magic.at && view.substr(magic.at).starts_with(magic.bytes)) return std::string(magic.is);
  if (is_onnx(view, path))
    return "an ONNX model: take the PyTorch weights it was made from, or in Python write its initializers under "
           "PyTorch's names with safetensors.numpy.save_file";
  if (std::string archive = tar(source, view); !archive.empty()) return archive;
  if (std::string text = text_format(view); !text.empty()) return text;
  if (std::all_of(view.begin(), view.end(), [](char c) { return c == 0; }))
    return "nothing but zeros where it begins: fetch or copy it again";
  const std::string name = path.filename().string();
  if (name.ends_with(".index") || name.find(".data-0") != name.npos || name.ends_with(".pb"))
    return "part of a TensorFlow model: in Python, tf.train.load_checkpoint reads its arrays; write them under "
           "PyTorch's "
           "names with safetensors.numpy.save_file";
  if (path.extension() == ".msgpack")
    return "a Flax file: in Python, flax.serialization.msgpack_restore reads it; write its arrays under PyTorch's "
           "names "
           "with safetensors.numpy.save_file";
  return "";
}

std::string foreign_archive(const std::vector<ZipEntry>& entries, const fs::path& path) {
  const auto any = [&](const auto& fits) { return std::any_of(entries.begin(), entries.end(), fits); };
  if (path.extension() == ".distcp") return std::string(kDistributed);
  if (any([](const ZipEntry& e) { return e.name.ends_with("/constants.pkl") || e.name.find("/code/") != e.name.npos; }))
    return "a TorchScript archive, a program with its weights: in Python, "
           "torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")";
  if (any([](const ZipEntry& e) {
        return is_any_of(e.name, {"serialized_exported_program.json", "archive_format", "models/model.json"});
      }))
    return "a program of torch.export with its weights: in Python, torch.save(torch.export.load(FILE).state_dict, "
           "\"weights.pth\")";
  if (any([](const ZipEntry& e) { return e.name == "data.pkl" || e.name.ends_with("/data.pkl"); })) return "";
  if (!entries.empty() &&
      std::all_of(entries.begin(), entries.end(), [](const ZipEntry& e) { return e.name.ends_with(".npy"); }))
    return "NumPy arrays (.npz): in Python, safetensors.numpy.save_file(dict(numpy.load(FILE)), \"model.safetensors\")";
  if (any([](const ZipEntry& e) { return e.name.ends_with("model.weights.h5"); }))
    return "a Keras model: in Python, read its arrays with keras and write them under PyTorch's names with "
           "safetensors.numpy.save_file";
  return "a zip archive without PyTorch's data.pkl: unpack it with unzip and give the file of weights in it";
}

std::string foreign_folder(const fs::path& path) {
  std::error_code none;
  size_t shards = 0;
  bool metadata = false, saved_model = false, archive = false;
  for (fs::directory_iterator at(path, none), end; at != end && !none; at.increment(none)) {
    const std::string name = at->path().filename().string();
    shards += name.ends_with(".distcp");
    metadata = metadata || name == ".metadata";
    saved_model = saved_model || name == "saved_model.pb";
    archive = archive || name == "data.pkl";
  }
  if (shards > 0 || metadata)
    return fmt::format(
        "a distributed checkpoint (torch.distributed.checkpoint): python -m "
        "torch.distributed.checkpoint.format_utils dcp_to_torch {} weights.pth",
        path.string());
  if (archive)
    return fmt::format(
        "what a PyTorch file has in it, unpacked: pack it again with (cd {} && zip -0 -r ../weights.pth "
        "{})",
        path.has_parent_path() ? path.parent_path().string() : ".", path.filename().string());
  if (saved_model) return "a TensorFlow SavedModel: take the PyTorch weights";
  return "";
}

}  // namespace saccade::io
