#pragma once

#include <saccade/core/tensor.h>

#include <filesystem>

/// @file
/// NumPy's array files (numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

namespace saccade::io {

/// Writes format 1.0, atomically (see AtomicFile). Throws Error for bf16, which NumPy does not have.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

/// Reads formats 1.0 to 3.0, little-endian, C order, of f32, f16, i32, i64 and u8. Throws Error naming the file and
/// what is not so.
Tensor read_npy(const std::filesystem::path& path);

}  // namespace saccade::io
