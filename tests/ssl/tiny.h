#pragma once

#include <saccade/core/batch.h>
#include <saccade/core/random.h>
#include <saccade/nn/regnet.h>
#include <saccade/ssl/methods/swav.h>

#include <memory>

/// A network and a data set that train in moments: 8 kinds of striped images, each sample with its own phase, which
/// views jitter, under noise.
namespace saccade::testing {

inline std::shared_ptr<nn::RegNet> tiny_trunk(uint64_t seed = 1) {
  return nn::regnet("y:d=2,w0=8,wa=8,wm=2,g=8,in=1,stem=simple,stem_width=8", seed);
}

/// Batch number `iteration`: two crops of 16 pixels and two of 8, a function of (seed, iteration) alone.
inline Batch tiny_batch(int64_t iteration, int64_t size = 16, uint64_t seed = 7) {
  Batch batch;
  batch.iteration = iteration;
  batch.epoch = iteration / 8;
  batch.images = Tensor::images({{2 * size, 16, 16}, {2 * size, 8, 8}}, 1);
  float* out = batch.images.data<float>().data();
  for (int64_t i = 0; i < size; ++i) {
    batch.indices.push_back(iteration % 8 * size + i);
    batch.labels.push_back(static_cast<int>(batch.indices.back() % 8));
  }
  for (const int side : {16, 8})
    for (int crop = 0; crop < 2; ++crop)
      for (int64_t i = 0; i < size; ++i) {
        const auto image = static_cast<uint64_t>(batch.indices[static_cast<size_t>(i)]);
        Philox own(seed, image), random(seed, Philox::mix(static_cast<uint64_t>(iteration), image),
                                        static_cast<uint64_t>(1000 * (side + crop)));
        const int kind = batch.labels[static_cast<size_t>(i)];
        const float phase = own.uniform(0.f, 6.28f) + random.uniform(-0.7f, 0.7f);
        for (int y = 0; y < side; ++y)
          for (int x = 0; x < side; ++x)
            *out++ = std::sin(phase + 0.4f * static_cast<float>((kind % 4 + 1) * (kind < 4 ? x : y))) +
                     0.3f * random.normal();
      }
  return batch;
}

inline ssl::SwAVOptions tiny_options() { return {.prototypes = 12, .hidden = 32, .dim = 16}; }

}  // namespace saccade::testing
