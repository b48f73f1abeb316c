#include <saccade/core/allocator.h>
#include <saccade/core/random.h>
#include <saccade/nn/init.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace saccade::nn {
namespace {

constexpr uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return hash;
}

/// In (0, 1): half a step away from both ends, so that its logarithm is finite.
double open_unit(uint32_t word) { return (word + 0.5) * 0x1p-32; }

/// Four values of every Philox block, block i for the elements from 4 i on: any thread may draw any part.
template <class FromWords>
Tensor draw(const Init& init, const std::string& name, Shape shape, FromWords&& from_words) {
  const TagScope tag(Tag::parameters);
  const Device device = DeviceScope::current();
  if (device == Device::meta) return Tensor::empty(std::move(shape));
  const DeviceScope here(Device::cpu);  // drawn here, whoever computes with it
  Tensor tensor = Tensor::empty(std::move(shape));
  const auto values = tensor.data<float>();
  const auto count = static_cast<int64_t>(values.size());
  const uint64_t stream = fnv1a((init / name).path);
#pragma omp parallel for schedule(static) if (count > 65536)
  for (int64_t first = 0; first < count; first += 4) {
    const std::array<float, 4> four = from_words(Philox::block(init.seed, stream, static_cast<uint64_t>(first / 4)));
    std::copy_n(four.begin(), std::min<int64_t>(4, count - first), values.begin() + first);
  }
  return device == Device::cpu ? tensor : tensor.to(device);
}

}  // namespace

Tensor Init::normal(const std::string& name, Shape shape, double std) const {
  return draw(*this, name, std::move(shape), [std](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> four;
    for (size_t i = 0; i < 4; i += 2) {  // Box-Muller, both of the pair
      const double radius = std * std::sqrt(-2.0 * std::log(open_unit(words[i])));
      const double angle = 6.283185307179586 * open_unit(words[i + 1]);
      four[i] = static_cast<float>(radius * std::cos(angle));
      four[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
    return four;
  });
}

Tensor Init::uniform(const std::string& name, Shape shape, double bound) const {
  return draw(*this, name, std::move(shape), [bound](const std::array<uint32_t, 4>& words) {
    std::array<float, 4> four;
    for (size_t i = 0; i < 4; ++i) four[i] = static_cast<float>(bound * (2.0 * open_unit(words[i]) - 1.0));
    return four;
  });
}

Tensor Init::constant(Shape shape, float value) {
  const TagScope tag(Tag::parameters);
  return Tensor::full(std::move(shape), value);
}

}  // namespace saccade::nn
