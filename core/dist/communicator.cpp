#include <fmt/format.h>
#include <saccade/core/dist/communicator.h>
#include <saccade/core/layer.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace saccade::dist {

std::string_view name_of(Collective::Kind kind) {
  constexpr std::string_view names[] = {"all-reduce", "all-gather", "reduce-scatter", "broadcast", "barrier"};
  return names[static_cast<size_t>(kind)];
}

void Pending::wait() {
  if (const auto wait = std::exchange(wait_, {})) wait();
}

bool Communicator::begins(const Collective& c, const Tensor& x) {
  if (x.device() != device() && x.device() != Device::meta)
    fail(fmt::format("{}: a tensor on {}, where processes exchange those on {}", name_of(c.kind), name_of(x.device()),
                     name_of(device())));
  const bool sums = c.kind == Collective::Kind::all_reduce || c.kind == Collective::Kind::reduce_scatter;
  if (sums && c.dtype != DType::f32 && c.dtype != DType::i32 && c.dtype != DType::i64)
    fail(fmt::format("{}: a tensor of {}; expected f32, i32 or i64", name_of(c.kind), name_of(c.dtype)));
  Traffic& counted = traffic_[c.kind];
  ++counted.calls;
  counted.bytes += c.count * static_cast<int64_t>(size_of(c.dtype));
  return x.device() != Device::meta && c.count > 0;
}

namespace {

Collective of_all(Collective::Kind kind, const Tensor& x, Reduce op) {
  return {.kind = kind, .in = x.raw(), .out = x.raw(), .count = x.numel(), .dtype = x.dtype(), .op = op};
}

void check_parts(Collective::Kind kind, const Tensor& own, const Tensor& all, int size) {
  if (all.dtype() != own.dtype() || all.device() != own.device() || all.numel() != own.numel() * size)
    fail(fmt::format("{}: {} {} for {} parts of {} {}", name_of(kind), name_of(all.dtype()), to_string(all.shape()),
                     size, name_of(own.dtype()), to_string(own.shape())));
}

}  // namespace

void Communicator::all_reduce(const Tensor& x, Reduce op) {
  const Collective c = of_all(Collective::Kind::all_reduce, x, op);
  if (!begins(c, x)) return;
  run(c);
  x.bump_version();
}

Pending Communicator::start_all_reduce(const Tensor& x, Reduce op) {
  const Collective c = of_all(Collective::Kind::all_reduce, x, op);
  if (!begins(c, x)) return {};
  x.bump_version();
  return start(c);
}

void Communicator::all_gather(const Tensor& own, const Tensor& all) {
  constexpr auto kind = Collective::Kind::all_gather;
  check_parts(kind, own, all, size());
  const Collective c{.kind = kind, .in = own.raw(), .out = all.raw(), .count = own.numel(), .dtype = own.dtype()};
  if (!begins(c, own)) return;
  run(c);
  all.bump_version();
}

void Communicator::all_gather(std::span<const uint8_t> own, std::span<uint8_t> all) {
  const Collective c{
      .kind = Collective::Kind::all_gather, .in = own.data(), .out = all.data(), .count = std::ssize(own)};
  Traffic& counted = traffic_[c.kind];
  ++counted.calls;
  counted.bytes += c.count;
  if (c.count == 0) return;
  if (device() == Device::cpu) return run(c);
  const DeviceScope here(Device::cpu);
  const Tensor x = Tensor::empty({c.count}, DType::u8);
  std::ranges::copy(own, x.data<uint8_t>().begin());
  const Tensor there = x.to(device());
  const DeviceScope device_scope(device());
  const Tensor gathered = Tensor::empty({size() * c.count}, DType::u8);
  run({.kind = c.kind, .in = there.raw(), .out = gathered.raw(), .count = c.count});
  std::ranges::copy(gathered.to(Device::cpu).data<uint8_t>(), all.begin());
}

void Communicator::reduce_scatter(const Tensor& all, const Tensor& own) {
  constexpr auto kind = Collective::Kind::reduce_scatter;
  check_parts(kind, own, all, size());
  const Collective c{.kind = kind, .in = all.raw(), .out = own.raw(), .count = own.numel(), .dtype = own.dtype()};
  if (!begins(c, own)) return;
  run(c);
  own.bump_version();
}

void Communicator::broadcast(const Tensor& x, int root) {
  Collective c = of_all(Collective::Kind::broadcast, x, Reduce::sum);
  c.root = root;
  if (root < 0 || root >= size()) fail(fmt::format("broadcast: from process {} of {}", root, size()));
  if (!begins(c, x)) return;
  run(c);
  if (rank() != root) x.bump_version();
}

void Communicator::barrier() {
  ++traffic_[Collective::Kind::barrier].calls;
  run({.kind = Collective::Kind::barrier});
}

namespace {

class Alone final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int) override { return alone(); }
  [[noreturn]] void abort(int status) override { std::_Exit(status); }

 private:
  void run(const Collective& c) override {
    if (c.in != c.out) std::memcpy(c.out, c.in, static_cast<size_t>(c.count) * size_of(c.dtype));
  }
  Pending start(const Collective&) override { return {}; }
};

class Rehearsed final : public Communicator {
 public:
  explicit Rehearsed(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  std::unique_ptr<Communicator> split(int) override { fail("rehearsed processes cannot be split"); }
  [[noreturn]] void abort(int status) override { std::_Exit(status); }

 private:
  void run(const Collective& c) override {
    if (c.kind != Collective::Kind::barrier) fail("rehearsed processes exchange tensors of the meta device alone");
  }
  Pending start(const Collective& c) override {
    run(c);
    return {};
  }
  int size_;
};

}  // namespace

std::unique_ptr<Communicator> alone() { return std::make_unique<Alone>(); }

std::unique_ptr<Communicator> rehearsed(int size) {
  if (size < 1) fail(fmt::format("{} processes; expected at least 1", size));
  return std::make_unique<Rehearsed>(size);
}

std::vector<std::vector<int64_t>> numbers_of_all(Communicator& ranks, const std::vector<int64_t>& own) {
  std::vector<int64_t> all(own.size() * static_cast<size_t>(ranks.size()));
  const auto in = std::as_bytes(std::span(own));
  const auto out = std::as_writable_bytes(std::span(all));
  ranks.all_gather({reinterpret_cast<const uint8_t*>(in.data()), in.size()},
                   {reinterpret_cast<uint8_t*>(out.data()), out.size()});
  std::vector<std::vector<int64_t>> numbers;
  for (size_t rank = 0; rank < static_cast<size_t>(ranks.size()); ++rank)
    numbers.emplace_back(all.begin() + static_cast<ptrdiff_t>(rank * own.size()),
                         all.begin() + static_cast<ptrdiff_t>((rank + 1) * own.size()));
  return numbers;
}

std::vector<std::string> texts_of_all(Communicator& ranks, const std::string& own) {
  size_t longest = 0;
  const auto lengths = numbers_of_all(ranks, {std::ssize(own)});
  for (const auto& length : lengths) longest = std::max(longest, static_cast<size_t>(length.front()));
  std::vector<uint8_t> padded(longest), all(longest * lengths.size());
  std::ranges::copy(own, padded.begin());
  ranks.all_gather(padded, all);
  std::vector<std::string> texts;
  for (size_t rank = 0; rank < lengths.size(); ++rank)
    texts.emplace_back(reinterpret_cast<const char*>(all.data()) + rank * longest,
                       static_cast<size_t>(lengths[rank].front()));
  return texts;
}

}  // namespace saccade::dist
