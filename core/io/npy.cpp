#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/input_file.h>
#include <saccade/core/io/npy.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>

namespace saccade::io {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kLargestHeader = 65536;

struct Described {
  DType dtype;
  std::string_view description;
};
constexpr Described kDescriptions[] = {
    {DType::f32, "<f4"}, {DType::f16, "<f2"}, {DType::i32, "<i4"}, {DType::i64, "<i8"}, {DType::u8, "|u1"}};

/// The header is a Python dictionary. This takes the ones NumPy writes: three known keys, in any order and spacing.
class HeaderText {
 public:
  explicit HeaderText(std::string_view text) : rest_(text) {}
  bool take(char c) {
    skip_space();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) throw Error(fmt::format("its header lacks a '{}' before \"{}\"", c, rest_.substr(0, 20)));
  }
  std::string_view quoted_text() {
    expect('\'');
    const size_t end = rest_.find('\'');
    if (end == rest_.npos) throw Error("its header has a string without an end");
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"})
      if (rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return word == "True";
      }
    throw Error("its header gives fortran_order no truth value");
  }
  Shape shape() {
    Shape shape;
    expect('(');
    while (!take(')')) {
      skip_space();
      int64_t extent = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
      if (error != std::errc() || extent < 0 || shape.size() == 64) throw Error("its header has no valid shape");
      rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
      shape.push_back(extent);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

 private:
  void skip_space() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_[0]))) rest_.remove_prefix(1);
  }
  std::string_view rest_;
};

}  // namespace

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  const auto* described = std::find_if(std::begin(kDescriptions), std::end(kDescriptions),
                                       [&](const Described& each) { return each.dtype == tensor.dtype(); });
  if (described == std::end(kDescriptions))
    throw Error(fmt::format("write_npy: NumPy has no type {}; cast the tensor to f32", name_of(tensor.dtype())));
  if (tensor.device() == Device::meta) throw Error("write_npy: a meta tensor has no data to write");
  const Tensor here = tensor.to(Device::cpu);
  // A tuple of one has a comma in Python.
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", described->description,
                  fmt::join(tensor.shape(), ", "), tensor.rank() == 1 ? "," : "");
  constexpr size_t prefix = 10;  // magic, version, u16 length; the data starts at a multiple of 64
  header.resize((prefix + header.size() + 1 + 63) / 64 * 64 - prefix - 1, ' ');
  header += '\n';
  write_file_atomically(path, [&](AtomicFile& file) {
    const auto length = static_cast<uint16_t>(header.size());
    file.write(kMagic);
    file.write("\x01\0", 2);
    file.write(&length, sizeof(length));
    file.write(header);
    file.write(here.raw(), here.bytes());
  });
}

Tensor read_npy(const std::filesystem::path& path) try {
  const InputFile file(path);
  unsigned char start[12] = {};
  file.read(0, start, 10);
  if (std::string_view(reinterpret_cast<char*>(start), 6) != kMagic) throw Error("it is not a .npy file");
  if (start[6] < 1 || start[6] > 3) throw Error(fmt::format("it has version {}.{}", start[6], start[7]));
  const size_t prefix = start[6] == 1 ? 10 : 12;
  file.read(0, start, prefix);
  size_t length = 0;
  for (size_t i = prefix; i-- > 8;) length = length << 8 | start[i];
  if (length > kLargestHeader) throw Error(fmt::format("its header has {} bytes", length));
  std::string text(length, '\0');
  file.read(prefix, text.data(), length);

  HeaderText header(text);
  std::optional<DType> dtype;
  std::optional<bool> fortran;
  std::optional<Shape> shape;
  header.expect('{');
  while (!header.take('}')) {
    const std::string_view key = header.quoted_text();
    header.expect(':');
    if (key == "descr") {
      const std::string_view description = header.quoted_text();
      for (const Described& each : kDescriptions)
        if (each.description == description) dtype = each.dtype;
      if (!dtype)
        throw Error(fmt::format("it has type '{}'; f4, f2, i4, i8 (little-endian) and u1 can be read", description));
    } else if (key == "fortran_order") {
      fortran = header.boolean();
    } else if (key == "shape") {
      shape = header.shape();
    } else {
      throw Error(fmt::format("its header has the unknown key '{}'", key));
    }
    header.take(',');
  }
  if (!dtype || !fortran || !shape) throw Error("its header lacks descr, fortran_order or shape");
  if (*fortran && shape->size() > 1) throw Error("it is in Fortran order; save it in C order");
  uint64_t bytes = size_of(*dtype);
  for (const int64_t extent : *shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) throw Error("its shape is too large");
  if (bytes != file.size() - prefix - length)
    throw Error(fmt::format("its shape {} needs {} bytes of data, it has {}", to_string(*shape), bytes,
                            file.size() - prefix - length));
  const Device device = DeviceScope::current();
  if (device == Device::meta) return Tensor::empty(*shape, *dtype);
  const DeviceScope here(Device::cpu);
  const Tensor tensor = Tensor::empty(*shape, *dtype);
  file.read(prefix + length, tensor.raw(), tensor.bytes());
  return tensor.to(device);
} catch (const OutOfMemory&) {
  throw;
} catch (const Error& error) {
  throw Error(fmt::format("{} cannot be read: {}", path.string(), error.what()));
}

}  // namespace saccade::io
