#include <saccade/saccade.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

using namespace saccade;

int main(int argc, char** argv) {
  if (argc != 3) return std::puts("usage: learn FOLDER EPOCHS"), 2;

  const ssl::SwAVOptions options{.prototypes = 512, .hidden = 1024, .dim = 128};
  const auto make = [&] { return std::make_unique<ssl::SwAV>(nn::regnet("y_400mf"), options); };
  const auto model = make();
  const auto crops = data::multi_crop({{2, 96, {.14, 1}}, {4, 48, {.05, .14}}});
  data::Loader loader(data::folder(argv[1]), crops, {.batch = 64});
  ssl::keep_budget({.objective = make, .crops = crops.segments(64), .batch = 64}, model->trunk(), parse_bytes("6GiB"));
  ssl::Trainer trainer(*model, optim::larc_sgd(), {.epochs = std::atoi(argv[2]), .lr = 0.15f});
  trainer.observe({.on_step = [](const ssl::StepReport& s) { std::printf("%ld: %.3f\n", s.iteration, s.loss); },
                   .on_message = [](const ssl::HealthMessage& m) { std::puts(m.text().c_str()); }});
  trainer.fit(loader, "run");  // goes on from the checkpoint in that folder, if there is one
  io::save_safetensors("trunk.safetensors", nn::state_dict(model->trunk(), nn::Names::timm));
}
