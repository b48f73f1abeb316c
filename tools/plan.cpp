/// Tells before anything runs whether a training step fits a memory budget, what it costs in time, what to recompute,
/// and what would help: rehearsals on the meta device, timed by a description of a device or by measuring this machine.
///
///   saccade-plan --model y_256gf --crops 2x224+4x96 --batch 16 --precision f16 --device v100-32gb --html plan.html
#include <fmt/ranges.h>
#include <saccade/core/bytes.h>
#include <saccade/core/plan/conv_workspaces.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/rehearsal.h>
#include <saccade/saccade.h>

#include "flag_checks.h"
#include "outputs.h"
#include "program.h"
#include "run_settings.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string trunk = "y_400mf", crops = "2x96+4x48", precision = "f32", momentum = "f32", optimizer = "larc", budget,
              device, calibration = ssl::calibration_cache().string(), html, shard = "none";
  int batch = 128, workers = 0, threads = 0, ranks = 1;
  bool overwrite = false;
  ssl::SwAVOptions swav;
  ssl::StepOptions step;

  void flags(CLI::App& app) {
    const auto add = [&](const char* group, const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->group(group)->capture_default_str();
    };
    const char* group = "Step";
    add(group, "--model,--trunk", trunk, "y_200mf ... y_256gf, y_10b, x_..., resnet50");
    add(group, "--crops", crops, "COUNTxPIXELS joined by +");
    add(group, "--batch", batch, "Images a batch")->check(program::between(1, 1e6));
    add(group, "--accumulate", step.accumulate, "Batches a step")->check(program::between(1, 1e6));
    program::type_name(add(group, "--precision", precision, "Of activations: f32, bf16 or f16"));
    add(group, "--optimizer", optimizer, "larc (SGD) or adamw")->check(CLI::IsMember({"larc", "adamw"}));
    add(group, "--momentum", momentum, "Of larc: f32 or bf16")->check(CLI::IsMember({"f32", "bf16"}));
    app.add_flag("--fuse-optimizer", step.fuse_optimizer, "Updates within backward: gradients live a moment only")
        ->group(group);
    add(group, "--prototypes", swav.prototypes, "Of SwAV")
        ->default_str("batch + queue, at most 3000")
        ->check(program::between(2, 1e9));
    add(group, "--hidden-layers", swav.hidden_layers, "Of the projection head; SEER: 2")
        ->check(program::between(0, 100));
    add(group, "--head-bn", swav.head_bn, "Batch norm in the head; SEER: false");
    add(group, "--hidden", swav.hidden, "Width of the projection head")
        ->default_str("the trunk's, at least 512")
        ->check(program::between(1, 1e7));
    add(group, "--dim", swav.dim, "Of embeddings")->check(program::between(1, 1e7));
    add(group, "--queue", swav.queue_length, "Earlier embeddings that take part in assignments")
        ->check(program::at_least(0));
    add(group, "--workers", workers, "Of the loader, whose batches count")->check(CLI::Range(0, 1024));
    group = "Machine";
    add(group, "--budget", budget, "Memory of the whole process or device, as 14GiB")->default_str("all that there is");
    add(group, "--device", device,
        fmt::format("{}, or a JSON file (core/plan/devices has some to copy)", fmt::join(plan::device_names(), ", "))
            .c_str())
        ->default_str("this machine, measured");
    add(group, "--calibration", calibration, "File that keeps what was measured of this machine");
    add(group, "--threads", threads, "Threads to compute with; 0: all cores")->check(CLI::Range(0, 4096));
    add(group, "--ranks", ranks, "Processes that share the states")->check(program::between(1, 1e6));
    add(group, "--shard", shard, "none, zero2 (gradients, optimiser) or zero3 (parameters too): an estimate")
        ->check(CLI::IsMember({"none", "zero2", "zero3"}));
    add("Result", "--html", html, "Page with memory over the step and the plan under it");
    app.add_flag("--overwrite", overwrite, "Replace a page that exists")->configurable(false)->group("Result");
  }

  ssl::StepSpec spec(CLI::App& app) {
    step.precision = program::type_of(precision);
    if (shard != "none") step.fuse_optimizer = step.precision != DType::f16;  // each gradient is spent when reduced
    program::settle(app, "--prototypes", swav.prototypes, ssl::default_prototypes(batch, swav.queue_length));
    const DeviceScope meta(Device::meta);
    program::settle(app, "--hidden", swav.hidden, std::max<int64_t>(512, nn::trunk(trunk)->out_channels()));
    const DType kept = program::type_of(momentum);
    return {.trunk = trunk,
            .swav = swav,
            .crops = program::of_flag("--crops", crops,
                                      [&] { return data::multi_crop(data::parse_crops(crops)).segments(batch); }),
            .batch = batch,
            .channels = program::channels_of(trunk),
            .recipe = optimizer == "adamw" ? optim::adamw()
                                           : optim::larc_sgd({.weight_decay = 1e-6f, .momentum_dtype = kept}),
            .options = step,
            .loader_batches = data::batches_in_memory({.batch = batch, .workers = workers})};
  }
};

/// For questions about memory alone.
struct NoTime final : plan::TimeModel {
  double seconds(const kernels::Call&) override { return 0; }
};

/// Bytes that every rank is spared when parameters' states are shared out (Rajbhandari et al. 2020, ZeRO), beside the
/// largest parameter, which is gathered whole to be used.
int64_t spared(const Settings& s, const ssl::StepSpec& spec) {
  if (s.shard == "none" || s.ranks < 2) return 0;
  const DeviceScope meta(Device::meta);
  const ssl::SwAV model(nn::trunk(spec.trunk), spec.swav);
  int64_t parameters = 0, largest = 0;
  for (const NamedTensor& p : model.named_parameters()) {
    parameters += static_cast<int64_t>(p.tensor.bytes());
    largest = std::max(largest, static_cast<int64_t>(p.tensor.bytes()));
  }
  const int64_t states = s.optimizer == "adamw" ? 2 * parameters : s.momentum == "bf16" ? parameters / 2 : parameters;
  const int64_t shards = states + (s.shard == "zero3" ? parameters : 0);
  const int64_t gradients = s.step.fuse_optimizer ? -parameters / s.ranks : parameters - parameters / s.ranks;
  return shards - shards / s.ranks + gradients - (s.shard == "zero3" ? largest : 0);
}

/// Smallest budgets of the same step done otherwise.
std::vector<std::string> what_helps(const Settings& settings, const ssl::StepSpec& spec, int64_t beside) {
  NoTime no_time;
  std::vector<std::string> lines;
  const auto offer = [&](const std::string& what, const std::function<void(ssl::StepSpec&)>& change) {
    ssl::StepSpec other = spec;
    change(other);
    try {
      ssl::check(other.options);
      lines.push_back(fmt::format("{}: {}", what, bytes_text(ssl::Planner(other, no_time).smallest_budget() + beside)));
    } catch (const Error&) {  // excluded by the other settings
    }
  };
  if (spec.options.precision == DType::f32)
    offer("--precision bf16", [](ssl::StepSpec& o) { o.options.precision = DType::bf16; });
  if (!spec.options.fuse_optimizer)
    offer("--fuse-optimizer", [](ssl::StepSpec& o) { o.options.fuse_optimizer = true; });
  if (settings.optimizer == "larc" && settings.momentum == "f32")
    offer("--momentum bf16",
          [](ssl::StepSpec& o) { o.recipe = optim::larc_sgd({.weight_decay = 1e-6f, .momentum_dtype = DType::bf16}); });
  if (spec.batch > 1)
    offer(fmt::format("--batch {}", spec.batch / 2), [](ssl::StepSpec& o) {
      for (Segment& s : o.crops) s.n = s.n / o.batch * (o.batch / 2);
      o.batch /= 2;
    });
  return lines;
}

int make_plan(CLI::App& app, Settings& s) {
  if (s.threads > 0) omp_set_num_threads(s.threads);
  if (!s.html.empty()) program::check_output("--html", s.html, s.overwrite);
  const ssl::StepSpec spec = s.spec(app);
  ssl::check(spec.options);
  int64_t budget = s.budget.empty() ? 0 : program::of_flag("--budget", s.budget, [&] { return parse_bytes(s.budget); });
  int64_t outside = 0;
  std::unique_ptr<plan::TimeModel> time;
  plan::Calibration* measured = nullptr;
  std::string machine;
  if (s.device.empty()) {
    budget = budget > 0 ? budget : ssl::memory_of(Device::cpu);
    auto calibration = std::make_unique<plan::Calibration>(
        plan::CalibrationOptions{.cache = s.calibration, .memory = std::min<int64_t>(512 << 20, budget / 8)});
    measured = calibration.get();
    time = std::move(calibration);
    machine = fmt::format("this machine, {} threads", kernels::cpu_threads());
  } else {
    const plan::DeviceDescription device = plan::device_description(s.device);
    budget = budget > 0 ? std::min(budget, device.memory_bytes) : device.memory_bytes;
    outside = device.reserved_bytes;
    machine = device.name;
    if (!device.conv_workspaces.empty()) kernels::rehearse(plan::ConvWorkspaces(device.conv_workspaces));
    time = std::make_unique<plan::DescribedDevice>(device);
  }
  ssl::Planner planner(spec, *time);
  ssl::StepPlan eager = planner.keep_all(Keep::eager), lean = planner.keep_all(Keep::lean);
  if (measured != nullptr) {
    if (!measured->save() && app.get_option("--calibration")->count() > 0)
      throw Error(fmt::format("--calibration {}: cannot be written, or holds something else", s.calibration));
    measured->release();
    outside = ssl::process_overhead();
  }
  // What sharding spares is a sum of sizes, no rehearsal: a budget larger by as much.
  const int64_t relief = spared(s, spec), for_arena = budget - outside, rehearsed = for_arena + relief;
  const ssl::StepPlan best = planner.plan(rehearsed);
  std::vector<ssl::StepPlan> ways{best, std::move(eager), std::move(lean), planner.recompute_each_block(),
                                  planner.recompute_each_stage()};
  if (best.name != "planned") ways[0].name = "planned: " + best.name;
  for (ssl::StepPlan& way : ways) way.fits = way.rehearsal.arena <= rehearsed;

  const std::string title = fmt::format("{}, {}, batch {}, {}", s.trunk, s.crops, s.batch, s.precision);
  const std::string subtitle =
      fmt::format("{:.1f} M parameters, {:.3g} TFLOP a step, on {}", 1e-6 * static_cast<double>(planner.parameters()),
                  best.rehearsal.flops * 1e-12, machine);
  std::string verdict = best.fits
                            ? fmt::format("Fits: {} of {} in use at the most, {} a step.",
                                          bytes_text(best.rehearsal.arena - relief + outside), bytes_text(budget),
                                          ssl::seconds_text(best.rehearsal.seconds))
                            : fmt::format("Does not fit in {}: the smallest budget that would do is {}.",
                                          bytes_text(budget), bytes_text(best.rehearsal.arena - relief + outside));
  if (relief != 0)
    verdict += fmt::format(" Of the arena below, {} lie on the other {} ranks (an estimate).", bytes_text(relief),
                           s.ranks - 1);
  std::vector<std::pair<std::string, std::string>> more;
  if (best.fits) {
    NoTime no_time;
    constexpr int64_t kMost = 65536;
    const int64_t largest = ssl::largest_batch(spec, no_time, rehearsed, kMost).batch;
    more.emplace_back("Largest batch that fits", fmt::format("{}{}", largest, largest == kMost ? " or more" : ""));
  } else {
    for (const std::string& line : what_helps(s, spec, outside - relief)) more.emplace_back("Would need", line);
  }
  const plan::Plan steps{.steps = best.steps, .feasible = true};
  const std::string plan_text = plan::describe(planner.chain(), steps);
  const std::vector<ssl::ReportTable> tables{ssl::memory_table(best.rehearsal, outside), ssl::ways_table(ways),
                                             ssl::layer_table(planner, best)};
  fmt::print("{}\n{}\n\n{}\n", title, subtitle, verdict);
  for (const auto& [name, value] : more) fmt::print("{}: {}\n", name, value);
  fmt::print("Plan: {}\n", plan_text);
  for (const ssl::ReportTable& table : tables) fmt::print("\n{}", ssl::table_text(table));
  if (!s.html.empty()) {
    ssl::HtmlReport page;
    page.title = "Plan: " + title;
    page.subtitle = subtitle;
    page.key_figures = {
        {"Verdict", best.fits ? "fits" : "does not fit"},
        {best.fits ? "In use at the most" : "Smallest budget", bytes_text(best.rehearsal.arena - relief + outside)},
        {"Budget", bytes_text(budget)},
        {"A step", ssl::seconds_text(best.rehearsal.seconds)}};
    if (best.fits) page.key_figures.push_back(more[0]);
    page.curves_title = "Memory";
    page.curves = {ssl::memory_chart(best.rehearsal, rehearsed)};
    page.details = {tables[2], tables[1], tables[0]};
    page.details[0].title = "The plan: " + plan_text;
    for (const auto& [name, value] : program::settings_of(app)) page.configuration.emplace_back(name, value);
    if (!best.fits)
      for (const auto& line : more) page.configuration.push_back(line);
    ssl::write_html_report(s.html, page);
    fmt::print("\nThe page is {}\n", s.html);
  }
  return best.fits ? 0 : 1;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  Settings settings;
  CLI::App app("Tells whether a training step fits a memory budget, and how.", "saccade-plan");
  settings.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return make_plan(app, settings); });
}
