#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/core/io/zip_archive.h>

#include <vector>

/// @file
/// What torch.save writes: a zip archive, or before PyTorch 1.6 five pickles and the elements behind them.

namespace saccade::io {

/// From an archive whose entries are `entries`. Throws Error as load_weights does, without the file's name.
WeightFile read_pytorch_archive(const ByteSource& source, std::vector<ZipEntry> entries, MemoryBudget& budget);

/// A file that is pickles: PyTorch's before 1.6, or one plain pickle of NumPy arrays.
WeightFile read_pickles(const ByteSource& source, MemoryBudget& budget);

}  // namespace saccade::io
