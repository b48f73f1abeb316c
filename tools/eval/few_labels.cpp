#include "few_labels.h"

#include <fmt/format.h>
#include <saccade/data/printable.h>
#include <saccade/ssl/eval/worth.h>
#include <saccade/vision/features.h>
#include <saccade/vision/fine_tune.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "../flag_checks.h"
#include "../program.h"

namespace saccade::program {
namespace {

/// The images that have labels in one draw.
struct Draw {
  uint64_t seed = 0;
  std::vector<int64_t> rows{};  ///< of the images to learn from that could be read
  std::vector<int> labels{};    ///< of these rows
};

std::vector<int64_t> choose(const std::vector<int>& labels, double share, uint64_t seed) {
  return of_flag("--few-labels", fmt::format("{:g}", share), [&] { return ssl::choose_share(labels, share, seed); });
}

Draw draw_of(const std::vector<int>& labels, double share, uint64_t seed) {
  Draw draw{.seed = seed, .rows = choose(labels, share, seed)};
  for (const int64_t row : draw.rows) draw.labels.push_back(labels[static_cast<size_t>(row)]);
  return draw;
}

/// A way of using labels, and what it is worth with those of a draw.
struct Way {
  std::string name;
  std::function<ssl::Worth(const Draw&)> judge;
};

Way linear(const std::string& name, const data::Rows& bank, const data::Rows& queries) {
  return {name, [&](const Draw& draw) {
            const auto probe = ssl::fit_linear_probe(ssl::gather_rows(bank.rows, draw.rows), draw.labels);
            return ssl::worth_of(probe, queries.rows, queries.labels);
          }};
}

void print(const std::vector<double>& values) {
  const ssl::Mean mean = ssl::mean_of(values);
  const std::string error = values.size() > 1 ? fmt::format(" +- {:.2f}", 100 * mean.error) : "";
  fmt::print("{:>18}", fmt::format("{:.2f}{} %", 100 * mean.mean, error));
  std::fflush(stdout);
}

}  // namespace

void FewLabels::flags(CLI::App& app) {
  const char* group = "Few labels";
  auto* few =
      app.add_option("--few-labels", shares,
                     "Judge with the labels of few images, too: 0.01,0.1 are shares of those of --train, of each "
                     "class as it is among all but two at least; numbers from 1 on are images in all. Judged are "
                     "a linear classifier on the features, the whole network trained on these images, and the "
                     "same network trained on them from scratch")
          ->delimiter(',')
          ->check(above_zero())
          ->group(group);
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return app.add_option(flag, value, help)->capture_default_str()->needs(few)->group(group);
  };
  add("--draws", draws, "How often these images are drawn, by the seeds 0, 1, ...")->check(between(1, 1000));
  add("--tune-iterations", tune.iterations, "Of training whole networks")->check(between(1, 1e7));
  add("--tune-batch", batch, "Images of an iteration, at most those that have labels")->check(between(2, 1e5));
  add("--tune-lr", tune.trunk_lr, "AdamW's learning rate at the top of its cosine")->check(above_zero());
  add("--tune-flip", flip, "Share of the crops that are mirrored; 0 where left and right differ")->check(between(0, 1));
}

void FewLabels::check(const data::Source& train) const {
  for (const double share : shares) choose(train.labels, share, 0);
}

void FewLabels::judge(const ssl::Network& network, const data::LabelledPair& images,
                      const std::vector<data::Rows>& bank, const std::vector<data::Rows>& queries, int workers) const {
  const Device device = network.trunk->device();
  data::MultiCrop crops = vision::mild_crops(network.info);
  crops.flip_p = flip;
  // Each image is looked at in many draws: decoded once where there is room.
  constexpr int64_t room_bytes = int64_t{1} << 30;
  const data::View shown = vision::view_of(network.info);
  const data::Source train = data::cached(images.train, room_bytes, crops.useful_side());
  const data::Source test = data::cached(images.test, room_bytes, shown.useful_side);

  const auto whole = [&](const Draw& draw, bool from_scratch) {
    const auto trunk = on(device, [&] { return nn::trunk(network.info.trunk, draw.seed); });
    if (!from_scratch) ssl::copy_weights(*network.trunk, *trunk);
    std::vector<int64_t> samples;
    for (const int64_t row : draw.rows) samples.push_back(bank[0].indices[static_cast<size_t>(row)]);
    ssl::FineTuneOptions options = tune;
    options.classes = train.num_classes();
    options.seed = draw.seed;
    const auto tuned =
        vision::fine_tune(trunk, data::subset(train, samples), crops, options,
                          {.batch = batch, .workers = workers, .seed = draw.seed, .bytes = device == Device::cuda});
    const data::Rows rows = vision::features(*trunk, network.info, test, workers);
    return ssl::worth_of(tuned.linear(), rows.rows, rows.labels);
  };
  std::vector<Way> ways{linear("linear", bank[0], queries[0]),
                        {"whole network", [&](const Draw& draw) { return whole(draw, false); }},
                        {"from scratch", [&](const Draw& draw) { return whole(draw, true); }}};
  if (bank.size() > 1) ways.push_back(linear("linear on pixels", bank.back(), queries.back()));

  fmt::print("With few labels: means of {} draws +- their standard errors; whole networks after {} iterations\n{:<32}",
             draws, tune.iterations, "");
  for (const Way& way : ways) fmt::print("{:>18}", way.name);
  fmt::print("\n");
  for (const double share : shares) {
    std::vector<Draw> drawn;
    for (int64_t i = 0; i < draws; ++i) drawn.push_back(draw_of(bank[0].labels, share, static_cast<uint64_t>(i)));
    const std::string of = fmt::format("{} labels, ", drawn[0].rows.size());
    fmt::print("{:<32}", of + "right");
    std::vector<std::vector<double>> areas;
    for (const Way& way : ways) {
      std::vector<double> right, area;
      for (const Draw& draw : drawn) {
        const ssl::Worth worth = way.judge(draw);
        right.push_back(worth.accuracy);
        if (worth.auroc) area.push_back(*worth.auroc);
      }
      print(right);
      areas.push_back(std::move(area));
    }
    fmt::print("\n");
    if (areas[0].empty()) continue;
    fmt::print("{:<32}", fmt::format("{}AUROC for {}", of, data::printable(train.class_names[1])));
    for (const std::vector<double>& area : areas) print(area);
    fmt::print("\n");
  }
}

}  // namespace saccade::program
