#include <fmt/format.h>
#include <saccade/core/batch_upload.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/data/image.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/train/budget.h>
#include <saccade/ssl/train/step.h>
#include <saccade/vision/choose.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <span>

namespace saccade::vision {
namespace {

constexpr int kSmall = 64;               ///< pixels; photographs have more
constexpr double kShownLarger = 4. / 3;  ///< than the first crops are whole images shown

/// A trunk and crops that go together.
struct Rung {
  std::string trunk, crops;
  double images;  ///< that it must be shown in all to be worth more than the rung before
};

/// For images of about 40 pixels and fewer, whose stem keeps their size.
std::vector<Rung> rungs_of_small(int side) {
  const int small = std::max(8, static_cast<int>(std::lround(0.6 * side / 4)) * 4);
  const std::string crops = fmt::format("2x{}@0.4-1+2x{}@0.2-0.5", std::max(side, 8), small);
  return {{"resnet9:width=16", crops, 0}, {"resnet9:width=32", crops, 6e5}, {"resnet9", crops, 5e6}};
}

/// From stems that take images down to a quarter of their size.
std::vector<Rung> rungs_of_photos(int side) {
  if (side < 96) {
    const int large = std::max(48, side / 8 * 8);
    const std::string crops = fmt::format("2x{}@0.25-1+2x{}@0.1-0.4", large, large / 2);
    return {{"resnet9:width=16,stem=resnet", crops, 0},
            {"resnet9:width=32,stem=resnet", crops, 6e5},
            {"y_400mf", crops, 5e6}};
  }
  return {{"resnet9:width=16,stem=resnet", "2x96@0.2-1+2x48@0.1-0.3", 0},
          {"resnet9:width=32,stem=resnet", "2x96@0.2-1+2x48@0.1-0.3", 6e5},
          {"y_400mf", "2x96@0.14-1+4x48@0.05-0.14", 2e6},
          {"y_800mf", "2x128@0.14-1+4x64@0.05-0.14", 5e6},
          {"y_1_6gf", "2x160@0.14-1+6x96@0.05-0.14", 1e7},
          {"y_3_2gf", "2x224@0.14-1+6x96@0.05-0.14", 3e7}};
}

std::vector<Rung> rungs_for(const ImageFacts& images) {
  return images.side <= 40 ? rungs_of_small(images.side) : rungs_of_photos(images.side);
}

/// The method's own crops, each with what it has of its own, in the sizes and areas of the rung. Small images are not
/// blurred.
std::string crops_for(const ssl::Method& method, const Rung& rung, const ImageFacts& images) {
  std::vector<data::CropSpec> crops = data::parse_crops(method.crops);
  const std::vector<data::CropSpec> wanted = data::parse_crops(rung.crops);
  const int large = crops.front().size;
  for (data::CropSpec& crop : crops) {
    const bool is_large = crop.size == large;
    const data::CropSpec& to = is_large ? wanted.front() : wanted.back();
    if (!is_large) crop.count = to.count;
    crop.size = to.size;
    crop.scale = to.scale;
    if (method.name == "simclr" && images.side <= kSmall) {  // it must be hard to find the other crop; pixels cost time
      crop.size = std::max(8, static_cast<int>(std::lround(0.75 * crop.size / 4)) * 4);
      crop.scale.low = 0.2f;
    }
    if (images.side <= kSmall) crop.own.blur_p.reset();
  }
  return data::to_text(crops);
}

template <class Number>
void read(const std::string& text, Number& to) {
  std::from_chars(text.data(), text.data() + text.size(), to);
}

/// Takes a value as a flag of that name would.
void set(Training& t, const std::string& name, const std::string& value) {
  const auto is = [&](const char* other) { return name == other; };
  if (is("trunk")) t.trunk = value;
  if (is("crops")) t.crops = value;
  if (is("optimizer")) t.optimizer = value;
  if (is("size")) read(value, t.size);
  if (is("precision")) t.options.precision = value == "bf16" ? DType::bf16 : DType::f32;
  if (is("batch")) read(value, t.batch);
  if (is("lr")) read(value, t.options.lr);
  if (is("iterations")) read(value, t.options.iterations);
  if (is("brightness")) read(value, t.views.brightness);
  if (is("contrast")) read(value, t.views.contrast);
  if (is("saturation")) read(value, t.views.saturation);
  if (is("hue")) read(value, t.views.hue);
  if (is("blur")) read(value, t.views.blur_p);
  for (const ssl::Setting& setting : t.method.settings)
    if (setting.name == name) {
      double number = 0;
      read(value, number);
      setting.set(number);
    }
}

/// Takes what is chosen, unless it was given.
struct Chooser {
  Training& training;
  const Given& given;
  std::vector<Choice> choices = {};

  bool is_given(const std::string& setting) const { return given && given(setting); }
  void take(const std::string& setting, const std::string& value, const std::string& reason) {
    if (is_given(setting)) return;
    set(training, setting, value);
    choices.push_back({setting, value, reason});
  }
};

/// With what a training takes of its method where nobody gave it.
void take_method(const Chooser& chooser, const std::string& name) {
  Training& t = chooser.training;
  if (t.method.name == name) return;
  t.method = ssl::method(name);
  if (!chooser.is_given("crops")) t.crops = t.method.crops;
  if (!chooser.is_given("optimizer")) t.optimizer = t.method.optimizer;
  if (!chooser.is_given("weight-decay")) t.weight_decay = t.method.weight_decay;
}

/// The images' own: whatever trunk and time.
void choose_views(Chooser& chooser, const ImageFacts& images) {
  const bool small = images.side <= kSmall;
  if (!small && !images.gray) return;
  const std::string reason = small ? fmt::format("half of what photographs get: images of {} pixels", images.side)
                                   : "half of what photographs get: levels are all that gray images differ in";
  for (const auto& [setting, value] :
       {std::pair{"brightness", "0.4"}, {"contrast", "0.4"}, {"saturation", "0.4"}, {"hue", "0.1"}})
    if (!images.gray || setting[0] == 'b' || setting[0] == 'c') chooser.take(setting, value, reason);
  chooser.take("blur", "0",
               small ? fmt::format("nothing of {} pixels is left sharp enough to be told", images.side)
                     : "what is fine tells gray images apart");
}

/// Things look larger in crops than in the whole image, so the network is shown that larger than the crops: Touvron et
/// al., "Fixing the train-test resolution discrepancy", 2019. Whoever gives crops may compare with what others publish,
/// who mostly show images at the size of the first; and a budget is planned for crops.
void choose_size(Chooser& chooser, const ImageFacts& images) {
  if (chooser.is_given("crops") || chooser.is_given("memory-budget")) return;
  const int crop = chooser.training.multi_crop().crops.front().size;
  const int size =
      images.side <= kSmall ? images.side : std::min(images.side, static_cast<int>(std::lround(kShownLarger * crop)));
  if (size > crop) chooser.take("size", std::to_string(size), "things look larger in crops than in the whole image");
}

void choose_batch(Chooser& chooser, const ImageFacts& images, Device device) {
  const int64_t usual = device == Device::cuda ? 256 : 128;
  int64_t batch = usual;
  while (batch > 8 && batch * 4 > images.count) batch /= 2;
  batch = std::min(batch, images.count);
  chooser.take("batch", std::to_string(batch),
               batch == usual ? "enough to compare within an iteration"
                              : fmt::format("at most a quarter of the {} images", images.count));
}

std::string trunk_of(const Rung& rung, const ImageFacts& images) {
  return images.gray ? nn::for_gray(rung.trunk) : rung.trunk;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Runs the first iterations of a training and forgets them.
/// @param at_most   seconds to spend, but for three iterations
/// @param too_long  of an iteration: then one is enough to know
/// @param needs_it  there is no cheaper training: a budget is kept by computing twice
/// @return seconds of one, their mean; nothing when its memory is not there
std::optional<double> seconds_of_iteration(const Time& time, const Training& training, const data::Source& source,
                                           Device device, double at_most, double too_long, bool needs_it) {
  const int channels = source.channels;
  const ssl::StepSpec step = training.step(channels, device);
  plan::NoTime no_time;
  const int64_t needed = ssl::Planner(step, no_time).keep_all(Keep::eager).rehearsal.arena;
  const bool fits = time.memory > 0 ? needed + ssl::process_overhead() <= time.memory
                                    : static_cast<double>(needed) <= 0.7 * static_cast<double>(ssl::memory_of(device));
  if (!fits && (time.memory == 0 || !needs_it)) return std::nullopt;
  const DeviceScope scope(device);
  const auto trunk = nn::trunk(training.trunk, training.seed);
  if (!fits) ssl::keep_budget(step, *trunk, time.memory);  // with what it computes twice
  const auto objective = training.make_objective(trunk);
  objective->train();
  const auto optimizer = training.recipe().build(objective->trained_parameters());
  data::Loader loader(source, training.multi_crop(),
                      {.batch = training.batch,
                       .workers = training.workers,
                       .seed = training.seed,
                       .bytes = device == Device::cuda,
                       .max_unreadable = 1});
  BatchUpload upload(device);
  optim::LossScale scale;
  const bool scaled = training.options.precision == DType::f16;
  const ssl::StepOptions options{.precision = training.options.precision, .accumulate = training.options.accumulate};
  const int64_t per_epoch = training.per_epoch(source.size());
  std::vector<double> seconds;
  const auto start = Clock::now();
  for (int64_t i = 0; seconds.size() < 2 || (seconds_since(start) < at_most && seconds.size() < 200); ++i) {
    const auto begin = Clock::now();
    std::vector<Batch> batches;
    for (int64_t b = 0; b < options.accumulate; ++b) batches.push_back(upload(loader.next()));
    ssl::train_step(*objective, *optimizer, batches,
                    {.iteration = i, .iterations = 100 * per_epoch, .per_epoch = per_epoch}, 1e-6f, options,
                    scaled ? &scale : nullptr);
    if (i == 0) continue;  // finds memory, and the plans of libraries
    seconds.push_back(seconds_since(begin));
    if (seconds.back() > too_long) break;
  }
  // The mean: what an iteration in ten waits for is time as well.
  return std::accumulate(seconds.begin(), seconds.end(), 0.) / static_cast<double>(seconds.size());
}

std::string count_text(double images) {
  return images >= 1e6 ? fmt::format("{:.1f} million", images / 1e6) : fmt::format("{:.0f}", images);
}

/// What follows from trunk, batch and a short run.
void choose_schedule(Chooser& chooser, const ImageFacts& images) {
  Training& t = chooser.training;
  chooser.take("optimizer", "adamw", "ahead of larc where minutes count");
  if (t.optimizer == "adamw") {
    const bool small = t.trunk.starts_with("y:") || t.trunk.starts_with("resnet9");
    const double for_128 = !small ? 5e-4 : t.method.name == "simclr" ? 3e-3 : 1.5e-3;
    const double rate = for_128 / 128 * t.batch * static_cast<double>(t.options.accumulate);
    chooser.take("lr", fmt::format("{:.4g}", rate),
                 small ? fmt::format("{:g} for 128 images suits a small network", for_128)
                       : "1e-3 for each 256 images of an iteration");
  }
  if (t.method.name == "swav") {
    const int64_t all = t.batch * t.options.accumulate;
    chooser.take("prototypes", std::to_string(2 * all), "twice the images of an iteration");
    if (images.side <= 40) chooser.take("dim", "64", "enough for so few prototypes");
  }
}

/// What is neither given nor chosen, as the method has it.
void settle(const Chooser& chooser, const ImageFacts& images) {
  Training& t = chooser.training;
  const auto is_there = [&](const std::string& name) {
    return chooser.is_given(name) ||
           std::ranges::find(chooser.choices, name, &Choice::setting) != chooser.choices.end();
  };
  const DeviceScope meta(Device::meta);
  const ssl::RunFacts facts = t.facts(images.count, nn::trunk(t.trunk)->out_channels());
  t.method.settle(facts, [&](const ssl::Setting& s) { return is_there(s.name); });
  if (!is_there("lr")) t.options.lr = static_cast<float>(t.method.lr.find(facts));
  if (!is_there("warmup")) t.options.warmup_iterations = static_cast<int64_t>(t.method.warmup.find(facts));
}

}  // namespace

ImageFacts look_at(const data::Source& source, int64_t most) {
  ImageFacts facts{.count = source.size(), .gray = true};
  std::vector<int> sides;
  std::string why;
  data::Image image;
  for (int64_t i = 0, looked = std::min(most, source.size()); i < looked; ++i) {
    try {
      source.read(i * source.size() / looked, 0, image);
    } catch (const Error& error) {  // whoever reads all of them lists it
      why = error.what();
      continue;
    }
    sides.push_back(std::min(image.height, image.width));
    if (image.channels == 3 && facts.gray) {
      const std::span<const uint8_t> p(image.pixels);
      for (size_t at = 0; at + 2 < p.size() && facts.gray; at += 3)
        facts.gray = std::abs(p[at] - p[at + 1]) <= 2 && std::abs(p[at + 1] - p[at + 2]) <= 2;
    }
  }
  if (sides.empty()) throw Error(fmt::format("{}: none of the images looked at can be read: {}", source.name, why));
  std::ranges::nth_element(sides, sides.begin() + std::ssize(sides) / 2);
  facts.side = sides[sides.size() / 2];
  return facts;
}

Choice choose_method() { return {"method", "simclr", "ahead of swav and dino where minutes count"}; }

std::vector<Choice> choose(Training& training, const ImageFacts& images, const Given& given) {
  Chooser chooser{training, given};
  const std::vector<Rung> rungs = rungs_for(images);
  const bool small = images.side <= 40;
  // The cheapest for small images, whose time is in their number; y_400mf for photographs.
  const Rung& rung = rungs[small ? 0 : std::min<size_t>(2, rungs.size() - 1)];
  chooser.take("trunk", trunk_of(rung, images),
               small ? fmt::format("its stem keeps images of {} pixels at their size", images.side)
                     : "a good first choice for photographs");
  chooser.take("crops", crops_for(training.method, rung, images), fmt::format("images of {} pixels", images.side));
  choose_size(chooser, images);
  choose_views(chooser, images);
  choose_batch(chooser, images, Device::cpu);
  return chooser.choices;
}

std::vector<Choice> choose_within(const Time& time, Training& training, data::Source& source, Device device,
                                  const Given& given) {
  const auto start = Clock::now();
  const double all = 60 * time.minutes;
  const ImageFacts images = look_at(source);
  Chooser chooser{training, given};
  const bool has_own =
      std::ranges::any_of(training.method.settings, [&](const ssl::Setting& s) { return chooser.is_given(s.name); });
  if (!has_own && !chooser.is_given("method")) {
    const Choice method = choose_method();
    take_method(chooser, method.value);
    chooser.choices.push_back(method);
  }
  if (images.gray && !chooser.is_given("trunk")) source = data::with_channels(std::move(source), 1);
  choose_views(chooser, images);
  choose_batch(chooser, images, device);

  struct Trial {
    std::string trunk, crops;  ///< with what was given
    double seconds;            ///< an iteration
    double shown;              ///< images, in all of the time
  };
  std::optional<Trial> best;
  std::string passed;  // why no dearer one
  for (const Rung& rung : rungs_for(images)) {
    Training tried = training;
    Chooser trying{tried, given};
    trying.take("trunk", trunk_of(rung, images), "");
    trying.take("crops", crops_for(training.method, rung, images), "");
    if (best && tried.trunk == best->trunk && tried.crops == best->crops) continue;  // given: no other to try
    choose_schedule(trying, images);
    const double together = tried.batch * static_cast<double>(tried.options.accumulate);
    const double too_long = best ? 2 * all * together / rung.images : std::numeric_limits<double>::infinity();
    auto seconds = seconds_of_iteration(time, tried, source, device, 0.015 * all, too_long, !best);
    if (!seconds) {
      passed = fmt::format("{} does not fit the memory", tried.trunk);
      break;
    }
    if (!best && !chooser.is_given("precision")) {  // dearer ones are tried in what is faster for the cheapest
      tried.options.precision = DType::bf16;
      const auto other = seconds_of_iteration(time, tried, source, device, 0.01 * all, 1.5 * *seconds, true);
      const bool faster = other && *other < 0.9 * *seconds;
      chooser.take("precision", faster ? "bf16" : "f32",
                   other ? fmt::format("an iteration of {} takes {:.3g} s in f32 and {:.3g} s in bf16 here",
                                       tried.trunk, *seconds, *other)
                         : "bf16 is not to be had here");
      if (faster) seconds = other;
    }
    const double shown = all / *seconds * together;
    if (best && shown < rung.images) {
      passed = fmt::format("{} would see {} in that time, and is worth it from {} on", tried.trunk, count_text(shown),
                           count_text(rung.images));
      break;
    }
    best = {tried.trunk, tried.crops, *seconds, shown};
  }
  if (!best) throw Error(fmt::format("no training fits the memory: {}", passed));
  const std::string sees =
      fmt::format("{} images can be shown to it{}{}", count_text(best->shown), passed.empty() ? "" : "; ", passed);
  chooser.take("trunk", best->trunk, sees);
  chooser.take("crops", best->crops, fmt::format("images of {} pixels", images.side));
  choose_size(chooser, images);
  choose_schedule(chooser, images);

  const double seconds = best->seconds;
  // The trunk is written, prototypes are looked at, checkpoints are kept: a fiftieth, and what was spent so far.
  const double left = 0.98 * all - seconds_since(start) - 1;
  const auto iterations = static_cast<int64_t>(left / seconds);
  const int64_t an_iteration = training.batch * training.options.accumulate;
  if (iterations < 10 && !chooser.is_given("iterations") && !chooser.is_given("epochs"))
    throw Error(
        fmt::format("{:g} minutes are too few: an iteration of {} images takes {:.3g} s here, and a training wants ten "
                    "at least",
                    time.minutes, an_iteration, seconds));
  if (!chooser.is_given("epochs"))
    chooser.take(
        "iterations", std::to_string(iterations),
        fmt::format("{:.3g} s each: {:.3g} epochs in what is left of {:g} minutes", seconds,
                    static_cast<double>(iterations * an_iteration) / static_cast<double>(images.count), time.minutes));
  settle(chooser, images);
  return chooser.choices;
}

}  // namespace saccade::vision
