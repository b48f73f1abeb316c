#pragma once

#include <saccade/core/io/input_file.h>
#include <saccade/kernels/error.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>

namespace saccade::io {

/// Bytes that parsers ask for piece by piece: those of a file, which need not fit into memory, or of a span.
class ByteSource {
 public:
  /// Both must outlive this.
  explicit ByteSource(const InputFile& file)
      : size_(file.size()), read_([&file](uint64_t offset, void* to, size_t bytes) { file.read(offset, to, bytes); }) {}
  explicit ByteSource(std::span<const char> data)
      : size_(data.size()),
        read_([data](uint64_t offset, void* to, size_t bytes) { std::memcpy(to, data.data() + offset, bytes); }) {}

  uint64_t size() const { return size_; }
  /// Exactly `bytes` bytes from `offset`; throws Error when there are fewer.
  void read(uint64_t offset, void* to, size_t bytes) const {
    if (offset > size_ || bytes > size_ - offset) throw Error("it ends before its data does");
    if (bytes > 0) read_(offset, to, bytes);
  }
  std::string text(uint64_t offset, size_t bytes) const {
    if (offset > size_ || bytes > size_ - offset) throw Error("it ends before its data does");
    std::string result(bytes, '\0');
    read(offset, result.data(), bytes);
    return result;
  }

 private:
  uint64_t size_;
  std::function<void(uint64_t, void*, size_t)> read_;
};

}  // namespace saccade::io
