/// SwAV on Fashion-MNIST's photos, labels unused, then kNN and linear accuracy.
#include <fmt/format.h>
#include <saccade/core/random.h>
#include <saccade/data/augment.h>
#include <saccade/nn/regnet.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/linear_probe.h>
#include <saccade/ssl/trainer.h>

#include <CLI/CLI.hpp>
#include <cstdio>

using namespace saccade;

struct Photos {
  std::vector<uint8_t> pixels;
  std::vector<int> labels;
  int64_t count = 0;
};

static std::vector<uint8_t> gunzip(const std::string& path, size_t skip) {
  FILE* pipe = popen(("zcat " + path).c_str(), "r");
  std::vector<uint8_t> bytes(64 << 20);
  bytes.resize(fread(bytes.data(), 1, bytes.size(), pipe));
  pclose(pipe);
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<int64_t>(skip));
  return bytes;
}

static Photos load(const std::string& folder, const std::string& part) {
  Photos p;
  p.pixels = gunzip(folder + "/" + part + "-images-idx3-ubyte.gz", 16);
  const auto labels = gunzip(folder + "/" + part + "-labels-idx1-ubyte.gz", 8);
  p.labels.assign(labels.begin(), labels.end());
  p.count = static_cast<int64_t>(labels.size());
  return p;
}

struct Crop {
  int count, size;
  float low, high;
};
struct Strength {
  float brightness = 0.4f, contrast = 0.4f, jitter_p = 0.8f, blur_p = 0.f, blur_low = 0.1f, blur_high = 1.f,
        flip_p = 0.5f;
};
static constexpr float kMean = 0.286f, kStd = 0.353f;

static Tensor plain(const Photos& photos, int64_t first, int64_t last) {
  Tensor x = Tensor::images({{last - first, 28, 28}}, 1);
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data<float>()[i] = (float(photos.pixels[first * 784 + i]) / 255.f - kMean) / kStd;
  return x;
}

int main(int argc, char** argv) {
  std::string data_folder = "/usr/share/datasets/fashion-mnist",
              trunk_name = "y:d=5,w0=32,wa=24,wm=2.5,g=8,in=1,stem=cifar,stem_width=32", run_folder, kind = "adamw";
  int64_t batch = 256, evaluate_every = 500, small = 2;
  uint64_t seed = 0;
  float wd = 1e-6f, large_low = 0.14f, small_low = 0.05f, small_high = 0.14f;
  int large_size = 28, small_size = 16;
  bool quick = false;
  Strength s;
  ssl::SwAVOptions swav{.prototypes = 256, .hidden = 512, .dim = 64};
  ssl::TrainerOptions train{.iterations = 2000, .lr = 2e-3f};
  CLI::App app("SwAV on Fashion-MNIST");
  app.add_option("--data", data_folder);
  app.add_option("--trunk", trunk_name);
  app.add_option("--run", run_folder);
  app.add_option("--optimizer", kind);
  app.add_option("--iterations", train.iterations);
  app.add_option("--batch", batch);
  app.add_option("--seed", seed);
  app.add_option("--lr", train.lr);
  app.add_option("--final-lr-ratio", train.final_lr_ratio);
  app.add_option("--warmup", train.warmup_iterations);
  app.add_option("--wd", wd);
  app.add_option("--prototypes", swav.prototypes);
  app.add_option("--hidden", swav.hidden);
  app.add_option("--dim", swav.dim);
  app.add_option("--head-bn", swav.head_bn);
  app.add_option("--temperature", swav.temperature);
  app.add_option("--eps", swav.eps);
  app.add_option("--sinkhorn", swav.sinkhorn_iterations);
  app.add_option("--queue", swav.queue_length);
  app.add_option("--queue-start", swav.queue_start_iteration);
  app.add_option("--freeze", swav.freeze_prototypes_iterations);
  app.add_option("--hard", swav.hard_assignment_iterations);
  app.add_option("--large-size", large_size);
  app.add_option("--large-min", large_low);
  app.add_option("--small", small);
  app.add_option("--small-size", small_size);
  app.add_option("--small-min", small_low);
  app.add_option("--small-max", small_high);
  app.add_option("--brightness", s.brightness);
  app.add_option("--contrast", s.contrast);
  app.add_option("--jitter-p", s.jitter_p);
  app.add_option("--blur-p", s.blur_p);
  app.add_option("--blur-min", s.blur_low);
  app.add_option("--blur-max", s.blur_high);
  app.add_option("--flip-p", s.flip_p);
  app.add_option("--evaluate-every", evaluate_every);
  app.add_flag("--quick", quick, "only kNN at the end");
  CLI11_PARSE(app, argc, argv);

  const Photos training = load(data_folder, "train"), test = load(data_folder, "t10k");
  auto trunk = nn::regnet(trunk_name, seed);
  fmt::print("trunk: {} parameters, {} features\n", trunk->parameter_count(), trunk->out_channels());
  ssl::SwAV model(trunk, swav, seed);

  const std::vector<Crop> crops = {{2, large_size, large_low, 1.f}, {int(small), small_size, small_low, small_high}};
  const int64_t per_epoch = training.count / batch;
  int64_t at = 0;
  std::vector<int64_t> order(static_cast<size_t>(training.count));
  int64_t ordered_epoch = -1;
  const auto next = [&] {
    Batch b;
    b.iteration = at++;
    b.epoch = b.iteration / per_epoch;
    if (b.epoch != ordered_epoch) {
      ordered_epoch = b.epoch;
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
      Philox shuffle(seed, Philox::mix(77, static_cast<uint64_t>(b.epoch)));
      for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[shuffle.below(uint32_t(i + 1))]);
    }
    const int64_t first = b.iteration % per_epoch * batch;
    b.indices.assign(order.begin() + first, order.begin() + first + batch);
    Segments segments;
    for (const Crop& c : crops)
      if (c.count) segments.push_back({c.count * batch, c.size, c.size});
    b.images = Tensor::images(segments, 1);
    float* out = b.images.data<float>().data();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < batch; ++i) {
      data::Image image{28, 28, 1, {}};
      const uint8_t* p = training.pixels.data() + b.indices[i] * 784;
      image.pixels.assign(p, p + 784);
      Philox random(seed, Philox::mix(uint64_t(b.epoch), uint64_t(b.indices[i])));
      data::Planes planes;
      int64_t base = 0;
      for (const Crop& c : crops)
        for (int v = 0; v < c.count; ++v) {
          const auto box = data::random_resized_box(28, 28, {c.low, c.high}, {0.75f, 4.f / 3.f}, random);
          data::resized_crop(image, box, c.size, c.size, random.uniform() < s.flip_p, planes);
          if (random.uniform() < s.jitter_p) {
            data::adjust_brightness(planes, random.uniform(1 - s.brightness, 1 + s.brightness));
            data::adjust_contrast(planes, random.uniform(1 - s.contrast, 1 + s.contrast));
          }
          if (random.uniform() < s.blur_p) data::gaussian_blur(planes, random.uniform(s.blur_low, s.blur_high));
          data::normalize(planes, &kMean, &kStd, out + base + i * c.size * c.size);
          base += batch * c.size * c.size;
        }
    }
    return b;
  };

  const auto embed = [&](const Photos& p) {
    return ssl::features(
        *trunk, [&](int64_t first, int64_t last) { return plain(p, first, last); }, p.count);
  };
  const auto knn = [&] {
    const Tensor bank = embed(training), queries = embed(test);
    return ssl::accuracy(ssl::knn_classify(bank, training.labels, queries), test.labels);
  };
  train.evaluate_every = evaluate_every;
  train.evaluate = [&](int64_t) { return std::vector<std::pair<std::string, double>>{{"kNN", knn()}}; };
  ssl::Trainer trainer(
      model, kind == "adamw" ? optim::adamw({.weight_decay = wd}) : optim::larc_sgd({.weight_decay = wd}), train);
  double seconds = 0, waiting = 0, total = 0, loss = 0;
  int64_t n = 0;
  trainer.observe({.on_step =
                       [&](const ssl::StepReport& r) {
                         seconds += r.seconds;
                         total += r.seconds;
                         waiting += r.waiting_seconds;
                         loss += r.loss;
                         if (++n == 100 || r.iteration + 1 == r.iterations) {
                           fmt::print("{:6d}  {:6.1f} s  loss {:.4f}  lr {:.5f}  {:.0f} images/s  data {:.0f} %\n",
                                      r.iteration + 1, total, loss / n, r.lr, n * r.images / seconds,
                                      100 * waiting / seconds);
                           std::fflush(stdout);
                           seconds = waiting = loss = 0, n = 0;
                         }
                       },
                   .on_health =
                       [](const ssl::HealthReading& h) {
                         if (h.iteration % 500) return;
                         for (const auto& m : h.metrics) fmt::print("  {} {:.3f}", m.name, m.value);
                         fmt::print("\n");
                       },
                   .on_message = [](const ssl::HealthMessage& m) { fmt::print("{}\n", m.text()); },
                   .on_evaluation =
                       [](int64_t i, const auto& numbers) {
                         for (const auto& [name, value] : numbers)
                           fmt::print("{:6d}  {} {:.2f} %\n", i, name, 100 * value);
                         std::fflush(stdout);
                       },
                   .on_notice = [](const std::string& sentence) { fmt::print("{}\n", sentence); }});
  trainer.fit({next, [&](int64_t i) { at = i; }, per_epoch}, run_folder);
  if (quick) return 0;
  const Tensor bank = embed(training), queries = embed(test);
  const auto probe = ssl::fit_linear_probe(bank, training.labels);
  fmt::print("linear probe {:.2f} %  (l2 {})\n", 100 * ssl::accuracy(probe.classify(queries), test.labels), probe.l2);
  const std::vector<int> few(training.labels.begin(), training.labels.begin() + 600);
  const auto few_probe = ssl::fit_linear_probe(bank.slice(0, 600).clone(), few);
  fmt::print("linear probe, 600 labels {:.2f} %  (l2 {})\n",
             100 * ssl::accuracy(few_probe.classify(queries), test.labels), few_probe.l2);
}
