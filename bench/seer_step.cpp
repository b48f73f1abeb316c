/// The step that SEER was about, on the machine at hand: RegNetY-256GF with its 8192-8192-256 head and 16,000
/// prototypes, crops of real photographs, planned for a memory budget beforehand and held to it.
///
///   bench/photos && ./dev bench seer-step                              batch 1 in 14 GiB
///   ./dev bench seer-step --batch 2 --budget 15GiB
///   ./dev bench seer-step --bf16-momentum --precision bf16 --budget 11GiB
///
/// It takes minutes. It prints the plan, and for two steps on one batch the loss and the time; then predicted and
/// measured bytes of the arena and of the whole process (VmHWM). It fails if the budget was not kept, the arena's bytes
/// differ from the prediction, the process's differ by more than 1 %, or the second loss is not the lower one.
#include <fmt/format.h>
#include <saccade/core/bytes.h>
#include <saccade/data/loader.h>
#include <saccade/data/multi_crop.h>
#include <saccade/data/source.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/planner.h>
#include <saccade/ssl/train/trainer.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>

using namespace saccade;

namespace {

struct Settings {
  std::string photos = "build/photos", trunk = "y_256gf", crops = "2x160+4x96", precision = "f32", budget = "14GiB";
  int64_t batch = 1, hidden = 8192, prototypes = 16000;
  float lr = 9.6f;
  bool bf16_momentum = false;
};

/// One batch of photographs, in memory of its own. The loader is gone when this returns, and its memory with it.
std::vector<float> photographs(const Settings& s, const data::MultiCrop& views) {
  data::Loader loader(data::folder(s.photos), views, {.batch = static_cast<int>(s.batch)});
  const Batch batch = loader.next();
  const auto pixels = batch.images.data<float>();
  return {pixels.begin(), pixels.end()};
}

int run(const Settings& s) {
  const data::MultiCrop views = data::multi_crop(data::parse_crops(s.crops));
  const std::vector<float> pixels = photographs(s, views);
  allocator(Device::cpu).trim();

  ssl::StepSpec spec;
  spec.objective = ssl::dearest_swav(s.trunk, {.prototypes = s.prototypes,
                                               .hidden = s.hidden,
                                               .hidden_layers = 2,
                                               .dim = 256,
                                               .head_bn = false,
                                               .eps = 0.03f,
                                               .sinkhorn_iterations = 10});
  spec.crops = views.segments(s.batch);
  spec.batch = s.batch;
  spec.recipe = optim::larc_sgd({.weight_decay = 1e-5f, .momentum_dtype = s.bf16_momentum ? DType::bf16 : DType::f32});
  spec.options = {.precision = s.precision == "bf16" ? DType::bf16 : DType::f32, .fuse_optimizer = true};

  plan::DescribedDevice cpu(plan::device_description("cpu"));
  ssl::Planner planner(spec, cpu);
  planner.rehearse({});  // the libraries have generated their code now
  const int64_t budget = parse_bytes(s.budget), overhead = ssl::process_overhead();
  const ssl::StepPlan plan = planner.plan(budget - overhead);
  fmt::print("{}, {} parameters, {}, batch {}, {}, momentum {}\n", s.trunk, planner.parameters(), s.crops, s.batch,
             s.precision, s.bf16_momentum ? "bf16" : "f32");
  if (!plan.fits) {
    fmt::print("{} are not enough; the smallest budget is {}\n", s.budget,
               bytes_text(planner.smallest_budget() + overhead));
    return 1;
  }
  fmt::print("plan: {}, {:.1f} % recomputed, {:.3g} TFLOP a step\n", plan.name,
             100 * plan.extra_seconds / (plan.rehearsal.seconds - plan.extra_seconds), plan.rehearsal.flops * 1e-12);
  for (size_t t = 0; t < kTags; ++t)
    fmt::print("  {:12}{:>12}\n", name_of(static_cast<Tag>(t)), bytes_text(plan.rehearsal.at_peak[t]));
  std::fflush(stdout);

  allocator(Device::cpu).set_budget(static_cast<size_t>(budget - overhead));
  allocator(Device::cpu).reset_peaks();
  const auto model = spec.objective();
  model->trunk().follow(plan.steps);
  ssl::Trainer trainer(*model, spec.recipe,
                       {.iterations = 2,
                        .lr = s.lr,
                        .final_lr_ratio = 1.f,
                        .precision = spec.options.precision,
                        .fuse_optimizer = true,
                        .monitor = false});
  std::vector<float> losses;
  trainer.observe({.on_step = [&](const ssl::StepReport& r) {
    losses.push_back(r.loss);
    fmt::print("step {}: loss {:.6f}, {:.1f} s\n", r.iteration + 1, double{r.loss}, r.seconds);
    std::fflush(stdout);
  }});
  Batch batch;
  {
    const TagScope tag(Tag::batch);
    batch.images = Tensor::images(spec.crops, 3);
  }
  std::memcpy(batch.images.raw(), pixels.data(), batch.images.bytes());
  batch.indices.resize(static_cast<size_t>(s.batch));
  trainer.fit({[&] { return batch; }, [](int64_t) {}, 2});

  const MemoryStats measured = allocator(Device::cpu).stats();
  const int64_t process = ssl::peak_resident(), predicted = plan.rehearsal.arena + overhead;
  const auto line = [](const char* what, int64_t expected, int64_t got) {
    fmt::print("{:18}predicted {:>14}, measured {:>14} bytes ({:+.3f} %)\n", what, expected, got,
               100.0 * static_cast<double>(got - expected) / static_cast<double>(expected));
  };
  line("in use", plan.rehearsal.peak, measured.total.peak);
  line("arena", plan.rehearsal.arena, measured.peak_reserved);
  line("process (VmHWM)", predicted, process);
  const bool kept = process <= budget,
             exact = measured.peak_reserved == plan.rehearsal.arena && measured.total.peak == plan.rehearsal.peak,
             close = std::abs(static_cast<double>(process - predicted)) <= 0.01 * static_cast<double>(predicted),
             learned = losses[1] < losses[0];
  fmt::print("budget {}: {}; arena {}; process within 1 %: {}; loss {}\n", s.budget, kept ? "kept" : "BROKEN",
             exact ? "exact to the byte" : "NOT AS PREDICTED", close ? "yes" : "NO", learned ? "lower" : "NOT LOWER");
  return kept && exact && close && learned ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("One SEER step within a memory budget.", "bench_seer_step");
  app.add_option("--photos", s.photos, "Folder of photographs (bench/photos fetches some)")->capture_default_str();
  app.add_option("--trunk", s.trunk)->capture_default_str();
  app.add_option("--crops", s.crops)->capture_default_str();
  app.add_option("--batch", s.batch)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--hidden", s.hidden)->capture_default_str();
  app.add_option("--prototypes", s.prototypes)->capture_default_str();
  app.add_option("--precision", s.precision)->check(CLI::IsMember({"f32", "bf16"}))->capture_default_str();
  app.add_option("--lr", s.lr)->capture_default_str();
  app.add_flag("--bf16-momentum", s.bf16_momentum, "Momentum in bf16, rounded stochastically");
  app.add_option("--budget", s.budget, "Memory of the whole process")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (!std::filesystem::exists(s.photos)) {
    fmt::print(stderr, "bench: there are no photographs in {}; bench/photos fetches some\n", s.photos);
    return 77;  // ctest: not run
  }
  try {
    return run(s);
  } catch (const OutOfMemory& error) {
    fmt::print(stderr, "bench: {}\n{}", error.what(), error.report());
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
  }
  return 1;
}
