#include <fmt/format.h>
#include <saccade/kernels/error.h>
#include <support/golden.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <sstream>

namespace saccade::golden {

namespace {

uint64_t fnv1a64(std::string_view text) {
  uint64_t h = 0xCBF29CE484222325ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return h;
}

uint64_t mixed(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// In [0, 1).
double unit(uint64_t seed, int64_t i) {
  return static_cast<double>(mixed(seed, static_cast<uint64_t>(i)) >> 40) * 0x1p-24;
}

/// Makes `values[i] = f(unit(name, i))`.
template <class F>
Values from_units(std::string_view name, int64_t count, F f) {
  const uint64_t seed = fnv1a64(name);
  Values values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = static_cast<float>(f(unit(seed, i)));
  return values;
}

/// (n, inner, channels) <-> (n, channels, inner): pixels or kernel taps are `inner`.
Values swap_last_two(std::span<const float> from, int64_t n, int64_t rows, int64_t columns) {
  Values to(from.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        to[static_cast<size_t>((i * columns + c) * rows + r)] = from[static_cast<size_t>((i * rows + r) * columns + c)];
  return to;
}

double norm(std::span<const float> values) {
  double squares = 0;
  for (const double v : values) squares += v * v;
  return std::sqrt(squares);
}

constexpr size_t kSlice = 8, kProjections = 4;  // as in formula.py

}  // namespace

uint64_t hash(std::string_view name, uint64_t i) { return mixed(fnv1a64(name), i); }

Values signed_values(std::string_view name, int64_t count, double scale) {
  return from_units(name, count, [&](double u) { return (2.0 * u - 1.0) * scale; });
}

Values parameter_values(std::string_view name, int64_t count, int64_t rank, int64_t fan_in) {
  if (rank >= 2) return signed_values(name, count, std::sqrt(6.0 / static_cast<double>(fan_in)));
  if (name.ends_with("weight")) return from_units(name, count, [](double u) { return 0.25 + 0.5 * u; });
  if (name.ends_with("running_var")) return from_units(name, count, [](double u) { return 0.5 + u; });
  if (name.ends_with("running_mean")) return from_units(name, count, [](double u) { return 0.2 * (2.0 * u - 1.0); });
  if (name.ends_with("bias"))
    return from_units(name, count, [](double u) { return 2.0 * u - 1.0 + (2.0 * u - 1.0 >= 0.0 ? 1.0 : -1.0); });
  throw Error(fmt::format("no formula for '{}'", name));
}

Tensor images(const Values& values, Segment segment, int64_t channels) {
  Tensor images = Tensor::images({segment}, channels);
  const Values rows = swap_last_two(values, segment.n, channels, segment.h * segment.w);
  std::copy(rows.begin(), rows.end(), images.data<float>().begin());
  return images;
}

Tensor image_input(std::string_view name, Segment segment) {
  const int64_t channels = 3, pixels = segment.h * segment.w;
  const uint64_t noise = fnv1a64(name), offset = fnv1a64(std::string(name) + ".offset");
  Values values(static_cast<size_t>(segment.n * channels * pixels));
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i)
    values[static_cast<size_t>(i)] =
        static_cast<float>((2.0 * unit(noise, i) - 1.0) + (8.0 * unit(offset, i / pixels) - 4.0));
  return images(values, segment, channels);
}

Tensor ragged(const std::vector<Tensor>& parts) {
  Segments segments;
  for (const Tensor& part : parts) segments.insert(segments.end(), part.segments().begin(), part.segments().end());
  Tensor all = Tensor::images(segments, parts.front().dim(1));
  auto to = all.data<float>().begin();
  for (const Tensor& part : parts) to = std::ranges::copy(part.data<float>(), to).out;
  return all;
}

Tensor segment_of(const Tensor& images, size_t i) {
  const Segments& segments = images.segments();
  const int64_t first = total_rows(std::span(segments).first(i));
  return images.detach().slice(first, first + segments[i].rows()).with_segments({segments[i]});
}

Tensor parameter(std::string_view name, const Shape& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  const auto rank = static_cast<int64_t>(shape.size());
  Values values = parameter_values(name, count, rank, rank >= 2 ? count / shape[0] : 1);
  if (rank == 4) values = swap_last_two(values, shape[0], shape[3], shape[1] * shape[2]);
  return Tensor::from(values, shape);
}

void fill(const std::vector<NamedTensor>& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (!name.starts_with("queue")) tensor.copy_from(parameter(name, tensor.shape()));
}

Values torch_order(const Tensor& tensor) {
  const auto data = tensor.data<float>();
  if (tensor.is_images()) {
    Values all;
    size_t at = 0;
    for (const Segment& s : tensor.segments()) {
      const auto size = static_cast<size_t>(s.rows() * tensor.dim(1));
      const Values part = swap_last_two(data.subspan(at, size), s.n, s.h * s.w, tensor.dim(1));
      all.insert(all.end(), part.begin(), part.end());
      at += size;
    }
    return all;
  }
  if (tensor.rank() == 4) return swap_last_two(data, tensor.dim(0), tensor.dim(1) * tensor.dim(2), tensor.dim(3));
  return {data.begin(), data.end()};
}

double relative_error(const Values& ours, const Values& theirs) {
  if (ours.size() != theirs.size())
    throw Error(fmt::format("{} values against {} golden ones", ours.size(), theirs.size()));
  double squares = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    squares += (double{ours[i]} - double{theirs[i]}) * (double{ours[i]} - double{theirs[i]});
  return std::sqrt(squares) / norm(theirs);
}

double relative_error(const Tensor& ours, const Tensor& theirs) {
  const auto golden = theirs.data<float>();
  return relative_error(torch_order(ours), Values(golden.begin(), golden.end()));
}

const std::string& File::text(const std::string& key) const {
  const auto entry = file_.metadata.find(key);
  if (entry == file_.metadata.end()) throw Error(fmt::format("golden file: no metadata '{}'", key));
  return entry->second;
}

double File::setting(const std::string& line, std::string_view key) const {
  std::istringstream words(text(line));
  for (std::string word; words >> word;)
    if (word.starts_with(fmt::format("{}=", key))) return std::stod(word.substr(key.size() + 1));
  throw Error(fmt::format("golden file: no '{}' in '{}'", key, line));
}

Segment File::segment(const std::string& key) const {
  std::istringstream words(text(key));
  Segment segment;
  words >> segment.n >> segment.h >> segment.w;
  return segment;
}

Ledger::Ledger(const File& file, const std::string& prefix, const std::string& names) {
  std::istringstream lines(file.text(names));
  for (std::string line; std::getline(lines, line);) names_.push_back(line);
  norms_ = torch_order(file[prefix + ".norms"]);
  slices_ = torch_order(file[prefix + ".slices"]);
  projections_ = torch_order(file[prefix + ".projections"]);
}

double Ledger::error(std::string_view name, const Values& ours) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end()) throw Error(fmt::format("golden file: no tensor '{}' in the ledger", name));
  const auto row = static_cast<size_t>(found - names_.begin());
  const double golden_norm = norms_[row];

  const uint64_t seed = fnv1a64("projection");
  double sums[kProjections] = {};
  for (size_t i = 0; i < ours.size(); ++i) {
    const uint64_t bits = mixed(seed, i);
    for (size_t k = 0; k < kProjections; ++k) sums[k] += (bits >> k & 1) ? double{ours[i]} : -double{ours[i]};
  }
  double projected = 0;
  for (size_t k = 0; k < kProjections; ++k)
    projected += std::pow(sums[k] - double{projections_[row * kProjections + k]}, 2) / kProjections;

  const size_t kept = std::min(kSlice, ours.size());
  const std::span slice(slices_.data() + row * kSlice, kept);
  double sliced = 0;
  for (size_t i = 0; i < kept; ++i) sliced += std::pow(double{ours[i]} - double{slice[i]}, 2);
  // Small first values are held to the size of the typical ones.
  const double typical = golden_norm * std::sqrt(static_cast<double>(kept) / static_cast<double>(ours.size()));
  const double errors[] = {std::abs(norm(ours) - golden_norm) / golden_norm, std::sqrt(projected) / golden_norm,
                           std::sqrt(sliced) / std::max(norm(slice), typical)};
  // A NaN anywhere must not pass for a small error.
  double worst = 0;
  for (const double e : errors) worst = e <= worst ? worst : e;
  return worst;
}

}  // namespace saccade::golden
