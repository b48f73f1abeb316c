#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/npy.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/data/printable.h>
#include <saccade/data/rows_file.h>
#include <saccade/kernels/error.h>

#include <vector>

namespace saccade::data {
namespace {

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::filesystem::path table_of(const std::filesystem::path& path) {
  return std::filesystem::path(path).replace_extension(".csv");
}

void write_rows(const std::filesystem::path& path, const Rows& rows, const Source& source) {
  if (path.extension() != ".npy" && path.extension() != ".safetensors")
    throw Error(fmt::format("{}: expected a name that ends in .npy or .safetensors", path.string()));
  // The table is on the disk, under its temporary name, before the matrix appears.
  io::AtomicFile csv(table_of(path));
  csv.write("row,path,class\n");
  for (size_t row = 0; row < rows.indices.size(); ++row) {
    const int label = rows.labels[row];
    const std::string name = label < 0 ? "" : printable(source.class_names[static_cast<size_t>(label)]);
    csv.write(fmt::format("{},{},{}\n", row, csv_field(source.key(rows.indices[row])), csv_field(name)));
  }
  if (path.extension() == ".npy")
    io::write_npy(path, rows.rows);
  else
    io::save_safetensors(path, std::vector<NamedTensor>{{"features", rows.rows}});
  csv.commit();
}

}  // namespace saccade::data
