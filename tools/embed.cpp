/// Features of all images of a folder, as a matrix that NumPy or safetensors reads, and a table of whose they are.
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/npy.h>
#include <saccade/data/printable.h>

#include <cmath>

#include "images.h"
#include "outputs.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string data, out;
  bool unit = false, overwrite = false;
  program::Weights weights;
  program::ImageFlags images;
  program::Machine machine;

  void flags(CLI::App& app) {
    weights.flags(app);
    app.add_option("--data", data, "Folder of images (all below it count), IDX files, or a CSV of paths")
        ->required()
        ->group("Images");
    images.flags(app);
    app.add_option("--out", out,
                   "FILE.npy or FILE.safetensors (there: `features`), f32 (images, features); FILE.csv has a line for "
                   "each row: row, path, class")
        ->required()
        ->group("Images");
    app.add_flag("--overwrite", overwrite, "Replace files that exist")->configurable(false)->group("Images");
    app.add_flag("--unit", unit, "Scale each row to length 1, so that products of rows are cosines")->group("Images");
    machine.flags(app);
    app.set_config("--config", "", "Read flags from this TOML file; those given here win");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.footer("Example:\n  saccade-embed --weights runs/photos --data photos/ --out photos.npy");
  }
};

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void scale_to_unit_length(const Tensor& rows) {
  const std::span<float> all = rows.data<float>();
  const auto width = static_cast<size_t>(rows.dim(1));
  for (size_t first = 0; first < all.size(); first += width) {
    const auto row = all.subspan(first, width);
    double squares = 0;
    for (const float v : row) squares += double{v} * double{v};
    const auto scale = static_cast<float>(1 / std::max(std::sqrt(squares), 1e-12));
    for (float& v : row) v *= scale;
  }
}

int embed(CLI::App& app, Settings& s) {
  s.weights.device = s.machine.apply();
  const std::filesystem::path out = s.out;
  if (out.extension() != ".npy" && out.extension() != ".safetensors")
    throw Error(fmt::format("--out {}: expected a name that ends in .npy or .safetensors", s.out));
  const std::filesystem::path table = std::filesystem::path(out).replace_extension(".csv");
  for (const auto& file : {out, table}) program::check_output("--out", file, s.overwrite, {s.data, s.weights.path});
  s.weights.load(app);
  const data::Source source = data::open_images(s.data, s.images.options(program::channels_of(s.weights.info.trunk)));
  fmt::print("{}\n", source.summary);
  const data::Rows found = s.weights.features(source, s.machine.workers);
  if (s.unit) scale_to_unit_length(found.rows);

  // The table is on the disk, under its temporary name, before the matrix appears.
  io::AtomicFile csv(table);
  csv.write("row,path,class\n");
  for (size_t row = 0; row < found.indices.size(); ++row) {
    const int label = found.labels[row];
    const std::string name = label < 0 ? "" : data::printable(source.class_names[static_cast<size_t>(label)]);
    csv.write(fmt::format("{},{},{}\n", row, csv_field(source.key(found.indices[row])), csv_field(name)));
  }
  if (out.extension() == ".npy")
    io::write_npy(out, found.rows);
  else
    io::save_safetensors(out, std::vector<NamedTensor>{{"features", found.rows}});
  csv.commit();
  fmt::print("{} x {} features in {}, their images in {}", found.rows.dim(0), found.rows.dim(1), out.string(),
             table.string());
  fmt::print("{}\n", found.failures.empty() ? "" : fmt::format("; {} could not be read", found.failures.size()));
  return 0;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  Settings settings;
  CLI::App app("Writes the features that a trained network finds in images.", "saccade-embed");
  settings.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return embed(app, settings); });
}
