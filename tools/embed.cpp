/// Features of all images of a folder, as a matrix that NumPy or safetensors reads, and a table of whose they are.
#include <saccade/data/rows_file.h>
#include <saccade/ssl/eval/features.h>

#include <filesystem>

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

int embed(CLI::App& app, Settings& s) {
  const Device device = s.machine.apply();
  const std::filesystem::path out = s.out;
  if (out.extension() != ".npy" && out.extension() != ".safetensors")
    throw Error(fmt::format("--out {}: expected a name that ends in .npy or .safetensors", s.out));
  const std::filesystem::path table = data::table_of(out);
  for (const auto& file : {out, table}) program::check_output("--out", file, s.overwrite, {s.data, s.weights.path});
  const ssl::Network network = s.weights.load(app, device);
  const data::Source source = data::open_images(s.data, s.images.options(program::channels_of(network.info.trunk)));
  fmt::print("{}\n", source.summary);
  const data::Rows found = program::features(network, source, s.machine.workers);
  if (s.unit) ssl::scale_to_unit_length(found.rows);
  data::write_rows(out, found, source);
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
