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
#include "method_flags.h"
#include "outputs.h"
#include "program.h"
#include "run_settings.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string trunk = "y_400mf", crops, precision = "f32", momentum = "f32", optimizer, budget, device,
              calibration = ssl::calibration_cache().string(), html;
  int batch = 128, workers = 0, threads = 0, ranks = 1;
  bool overwrite = false;
  ssl::Method method;
  ssl::StepOptions step;
  std::unique_ptr<dist::Communicator> others;  ///< who do not exist

  void flags(CLI::App& app) {
    for (const data::CropSpec& spec : data::parse_crops(method.crops))
      crops += fmt::format("{}{}x{}", crops.empty() ? "" : "+", spec.count, spec.size);
    optimizer = method.optimizer;
    const auto add = [&](const char* group, const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->group(group)->capture_default_str();
    };
    const char* group = "Method";
    program::add_method_flag(app, method, group);
    for (const ssl::Setting& setting : method.settings)
      if (setting.sizes) program::add_setting(app, setting, group);
    group = "Step";
    add(group, "--model,--trunk", trunk,
        "y_200mf ... y_256gf, y_10b, x_..., resnet9, resnet18, resnet34, resnet50, ...");
    add(group, "--crops", crops, "COUNTxPIXELS joined by +");
    add(group, "--batch", batch, "Images a batch, of all processes together")->check(program::between(1, 1e6));
    add(group, "--ranks", ranks,
        "Processes that share the batch: what is planned is one of them, without the time of exchanges")
        ->check(CLI::Range(1, 1 << 16));
    add(group, "--accumulate", step.accumulate, "Batches a step")->check(program::between(1, 1e6));
    program::type_name(add(group, "--precision", precision, "Of activations: f32, bf16 or f16"));
    add(group, "--optimizer", optimizer, "larc (SGD) or adamw")->check(CLI::IsMember({"larc", "adamw"}));
    add(group, "--momentum", momentum, "Of larc: f32 or bf16")->check(CLI::IsMember({"f32", "bf16"}));
    app.add_flag("--fuse-optimizer", step.fuse_optimizer, "Updates within backward: gradients live a moment only")
        ->group(group);
    add(group, "--workers", workers, "Of the loader, whose batches count")->check(CLI::Range(0, 1024));
    group = "Machine";
    add(group, "--budget", budget, "Memory of the whole process or device, as 14GiB")->default_str("all that there is");
    add(group, "--device", device,
        fmt::format("{}, or a JSON file (core/plan/devices has some to copy)", fmt::join(plan::device_names(), ", "))
            .c_str())
        ->default_str("this machine, measured");
    add(group, "--calibration", calibration, "File that keeps what was measured of this machine");
    add(group, "--threads", threads, "Threads to compute with; 0: all cores")->check(CLI::Range(0, 4096));
    app.set_config("--config", "",
                   "Read flags from this TOML file, which may be saccade-pretrain's; those given here win")
        ->group("Step");
    add("Result", "--html", html, "Page with memory over the step and the plan under it");
    app.add_flag("--overwrite", overwrite, "Replace a page that exists")->configurable(false)->group("Result");
  }

  ssl::StepSpec spec(CLI::App& app) {
    step.precision = program::type_of(precision);
    const DeviceScope meta(Device::meta);
    program::settle(app, method,
                    {.images = batch, .features = nn::trunk(trunk)->out_channels(), .optimizer = optimizer});
    const DType kept = program::type_of(momentum);
    if (batch < ranks) throw Error(fmt::format("--batch {}: it is divided among {} processes", batch, ranks));
    const auto own = static_cast<int>(dist::share_of(batch, 0, ranks).images());
    others = dist::rehearsed(ranks);
    if (ranks > 1) step.ranks = step.statistics = others.get();
    return {.objective = method.dearest(trunk),
            .crops = program::of_flag("--crops", crops,
                                      [&] { return data::multi_crop(data::parse_crops(crops)).segments(own); }),
            .batch = own,
            .channels = program::channels_of(trunk),
            .recipe = optimizer == "adamw" ? optim::adamw()
                                           : optim::larc_sgd({.weight_decay = 1e-6f, .momentum_dtype = kept}),
            .options = step,
            .loader_batches = data::batches_in_memory({.batch = own, .workers = workers})};
  }
};

/// Smallest budgets of the same step done otherwise.
std::vector<std::string> what_helps(const Settings& settings, const ssl::StepSpec& spec, int64_t beside) {
  plan::NoTime no_time;
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
    offer(fmt::format("--batch {}", spec.batch / 2 * settings.ranks), [](ssl::StepSpec& o) {
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
  const int64_t for_arena = budget - outside;
  const ssl::StepPlan best = planner.plan(for_arena);
  std::vector<ssl::StepPlan> ways{best, std::move(eager), std::move(lean), planner.recompute_each_block(),
                                  planner.recompute_each_stage()};
  if (best.name != "planned") ways[0].name = "planned: " + best.name;
  for (ssl::StepPlan& way : ways) way.fits = way.rehearsal.arena <= for_arena;

  const std::string title =
      fmt::format("{}, {}, batch {}{}, {}", s.trunk, s.crops, s.batch,
                  s.ranks > 1 ? fmt::format(" of {} processes, one of which is planned", s.ranks) : "", s.precision);
  const std::string subtitle =
      fmt::format("{:.1f} M parameters, {:.3g} TFLOP a step, on {}", 1e-6 * static_cast<double>(planner.parameters()),
                  best.rehearsal.flops * 1e-12, machine);
  const std::string verdict = best.fits ? fmt::format("Fits: {} of {} in use at the most, {} a step.",
                                                      bytes_text(best.rehearsal.arena + outside), bytes_text(budget),
                                                      ssl::seconds_text(best.rehearsal.seconds))
                                        : fmt::format("Does not fit in {}: the smallest budget that would do is {}.",
                                                      bytes_text(budget), bytes_text(best.rehearsal.arena + outside));
  std::vector<std::pair<std::string, std::string>> more;
  if (best.fits) {
    plan::NoTime no_time;
    constexpr int64_t kMost = 65536;
    const int64_t largest = s.ranks * ssl::largest_batch(spec, no_time, for_arena, kMost / s.ranks).batch;
    more.emplace_back("Largest batch that fits",
                      fmt::format("{}{}", largest, largest >= kMost / s.ranks * s.ranks ? " or more" : ""));
  } else {
    for (const std::string& line : what_helps(s, spec, outside)) more.emplace_back("Would need", line);
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
        {best.fits ? "In use at the most" : "Smallest budget", bytes_text(best.rehearsal.arena + outside)},
        {"Budget", bytes_text(budget)},
        {"A step", ssl::seconds_text(best.rehearsal.seconds)}};
    if (best.fits) page.key_figures.push_back(more[0]);
    page.curves_title = "Memory";
    page.curves = {ssl::memory_chart(best.rehearsal, for_arena)};
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
  const auto complete = [&](const std::vector<std::string>& arguments) {
    settings.method = program::choose_method(arguments);
    settings.flags(app);
    program::refuse_settings_of_others(app, settings.method, arguments, true);
  };
  return program::run(
      app, {argv + 1, argv + argc}, [&] { return make_plan(app, settings); }, complete);
}
