// Images in: decoding, each augmentation, and whole pipelines, on one core.
//
//   build/release/bench/bench_data_loading
//   python3 bench/peers/data_loading.py          the same work by torchvision and Pillow, to run in turn
//
// The photograph is 500 x 375, JPEG quality 90 (the usual size of ImageNet's). items_per_second counts images.

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <omp.h>
#include <saccade/data/loader.h>
#include <saccade/data/multi_crop.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace {

using namespace saccade;
using namespace saccade::data;

std::vector<uint8_t> photo_bytes() {
  std::vector<uint8_t> bytes;
  const auto root = std::filesystem::path(__FILE__).parent_path().parent_path();
  read_file(root / "tests/goldens/augment/photo.jpg", 1 << 20, bytes);
  return bytes;
}

const Image& photo() {
  static const Image image = decode(photo_bytes());
  return image;
}

Planes crop_of(int size, int channels) {
  const Image source = decode(photo_bytes(), {.channels = channels});
  Planes planes;
  resized_crop(source, {30, 40, 280, 300}, size, size, false, planes);
  return planes;
}

MultiCrop photo_crops() { return multi_crop({{2, 96, {.14f, 1.f}}, {4, 48, {.05f, .14f}}}); }
MultiCrop fashion_crops() { return multi_crop({{2, 28, {.3f, 1.f}}, {2, 16, {.1f, .3f}}}); }

void count_images(benchmark::State& state, int64_t a_loop = 1) { state.SetItemsProcessed(state.iterations() * a_loop); }

/// Argument: the eighths of the size at which the JPEG is decoded.
void decode_jpeg(benchmark::State& state) {
  const auto bytes = photo_bytes();
  Image image;
  const double side = state.range(0) == 8 ? 0 : 433.0 * static_cast<double>(state.range(0)) / 8 - 1;
  for (auto _ : state) decode(bytes, {.useful_side = side}, image);
  count_images(state);
}
BENCHMARK(decode_jpeg)->Arg(8)->Arg(4);

/// Arguments: height and width of the box, side of the crop, channels.
void resize(benchmark::State& state) {
  Planes planes;
  const Image image = decode(photo_bytes(), {.channels = static_cast<int>(state.range(3))});
  const Box box{40, 30, static_cast<int>(state.range(0)), static_cast<int>(state.range(1))};
  const int side = static_cast<int>(state.range(2));
  for (auto _ : state) resized_crop(image, box, side, side, false, planes);
  count_images(state);
}
BENCHMARK(resize)->Args({280, 300, 96, 3})->Args({120, 120, 48, 3})->Args({280, 300, 224, 3})->Args({24, 24, 28, 1});

template <class Operation>
void in_place(benchmark::State& state, Operation operation) {
  Planes planes = crop_of(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (auto _ : state) operation(planes);
  count_images(state);
}
void sizes(benchmark::internal::Benchmark* b) { b->Args({96, 3})->Args({28, 1}); }
BENCHMARK_CAPTURE(in_place, brightness, [](Planes& p) { adjust_brightness(p, 1.02f); })->Apply(sizes);
BENCHMARK_CAPTURE(in_place, contrast, [](Planes& p) { adjust_contrast(p, 0.98f); })->Apply(sizes);
BENCHMARK_CAPTURE(in_place, saturation, [](Planes& p) { adjust_saturation(p, 0.98f); })->Args({96, 3});
BENCHMARK_CAPTURE(in_place, hue, [](Planes& p) { adjust_hue(p, 0.1f); })->Args({96, 3});
BENCHMARK_CAPTURE(in_place, gray, [](Planes& p) { to_gray(p); })->Args({96, 3});
BENCHMARK_CAPTURE(in_place, blur, [](Planes& p) { gaussian_blur(p, 1.0f); })->Apply(sizes);
BENCHMARK_CAPTURE(in_place, normalize, [](Planes& p) {
  static float out[96 * 96 * 3];
  const float mean[] = {.485f, .456f, .406f}, std[] = {.229f, .224f, .225f};
  normalize(p, mean, std, out);
})->Apply(sizes);

/// Crops alone, of an image that is decoded.
void crops(benchmark::State& state, const MultiCrop& settings, const Image& image) {
  std::vector<std::vector<float>> memory;
  for (const CropSpec& spec : settings.crops) {
    for (int i = 0; i < spec.count; ++i)
      memory.emplace_back(static_cast<size_t>(spec.size) * spec.size * image.channels);
  }
  std::vector<float*> out;
  out.reserve(memory.size());
  for (auto& crop : memory) out.push_back(crop.data());
  uint64_t i = 0;
  for (auto _ : state) {
    Philox random(1, i++);
    make_crops(settings, image, random, out);
  }
  count_images(state);
}
BENCHMARK_CAPTURE(crops, photo, photo_crops(), photo());

/// Argument: number of threads. From a folder of 64 copies of the photograph to batches of 32.
void pipeline_photo(benchmark::State& state) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("saccade-bench-{}", getpid());
  std::filesystem::create_directories(path);
  const auto bytes = photo_bytes();
  for (int i = 0; i < 64; ++i) {
    std::ofstream(path / fmt::format("{}.jpg", i), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  {
    omp_set_num_threads(static_cast<int>(state.range(0)));
    Loader loader(folder(path.string()), photo_crops(), {.batch = 32});
    for (auto _ : state) loader.next();
    count_images(state, 32);
  }
  std::filesystem::remove_all(path);
}
BENCHMARK(pipeline_photo)->Arg(1)->Arg(2)->UseRealTime();

/// Argument: number of threads. Fashion-MNIST, 2 x 28 + 2 x 16 crops, all augmentations.
void pipeline_fashion_mnist(benchmark::State& state) {
  try {
    omp_set_num_threads(static_cast<int>(state.range(0)));
    Loader loader(fashion_mnist(), fashion_crops(), {.batch = 256});
    for (auto _ : state) loader.next();
    count_images(state, 256);
  } catch (const Error& error) {
    state.SkipWithError(error.what());
  }
}
BENCHMARK(pipeline_fashion_mnist)->Arg(1)->Arg(2)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
