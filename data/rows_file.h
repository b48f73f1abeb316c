#pragma once

#include <saccade/data/evaluate.h>

#include <filesystem>
#include <string>

namespace saccade::data {

/// The table that write_rows() puts beside a file.
std::filesystem::path table_of(const std::filesystem::path& path);

/// Writes rows, f32 (n, D), to FILE.npy or FILE.safetensors (there under `features`), and whose they are to FILE.csv:
/// a line for each row, "row,path,class", the class empty where there is none. Both files are whole or absent, and the
/// table is on the disk before the matrix appears. Throws saccade::Error for a name with another ending, and when a
/// file cannot be written.
/// @param source  that the rows were computed of
void write_rows(const std::filesystem::path& path, const Rows& rows, const Source& source);

}  // namespace saccade::data
