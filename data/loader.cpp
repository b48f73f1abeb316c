#include <fmt/format.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

namespace saccade::data {
namespace {

constexpr int64_t kMaxFailuresInARow = 4096;
/// Keeps the stream of the shuffles apart from those of the samples.
constexpr uint64_t kShuffle = 0x5368756666'6c65ull;

/// A batch in the making. Its samples are handed out one by one; the tensor belongs to it alone until it is complete.
struct Slot {
  Batch batch;
  void* pixels = nullptr;
  int next = 0, done = 0;  ///< samples handed out, samples finished
  int failed_sample = 0;
  std::exception_ptr error;
};

}  // namespace

struct Loader::Impl {
  Source source;
  View view;
  LoaderOptions options;
  double useful_side = 0;
  int64_t per_epoch = 0;
  int64_t position = 0;   ///< of the batch next() returns
  int64_t scheduled = 0;  ///< of the batch that schedule() begins
  int64_t order_epoch = -1;
  std::vector<uint32_t> order;  ///< of the samples, in epoch order_epoch
  std::vector<Tensor> buffers;  ///< of whole batches; those in use are also held by their batch

  mutable std::mutex failures_mutex;
  std::map<int64_t, std::string> failures;
  std::atomic<bool> has_failures = false;

  std::mutex mutex;  // guards all below, and the counters of the slots
  std::condition_variable work, finished;
  std::deque<std::unique_ptr<Slot>> slots;  ///< in order of iteration
  int active = 0;                           ///< workers at a sample
  bool stop = false;
  std::vector<std::thread> workers;

  Impl(Source s, View v, LoaderOptions o) : source(std::move(s)), view(std::move(v)), options(o) {
    if (options.batch < 1) throw Error(fmt::format("loader: expected a batch of at least 1, got {}", options.batch));
    if (options.workers < 0 || options.workers > 1024) {
      throw Error(fmt::format("loader: expected 0 to 1024 workers, got {}", options.workers));
    }
    if (options.prefetch < 1)
      throw Error(fmt::format("loader: expected a prefetch of at least 1, got {}", options.prefetch));
    if (source.size() < 1) throw Error(fmt::format("loader: the source {} is empty", source.name));
    if (source.size() > UINT32_MAX) throw Error(fmt::format("loader: {} samples are more than 2^32", source.size()));
    std::visit([](const auto& settings) { settings.check(); }, view);
    if (const auto* crops = std::get_if<MultiCrop>(&view)) useful_side = crops->useful_side();
    per_epoch = options.drop_last ? source.size() / options.batch : (source.size() + options.batch - 1) / options.batch;
    if (per_epoch == 0) {
      throw Error(fmt::format("loader: {} has {} samples, fewer than one batch of {}", source.name, source.size(),
                              options.batch));
    }
    try {
      for (int i = 0; i < options.workers; ++i) workers.emplace_back([this] { work_loop(); });
    } catch (...) {
      shut_down();
      throw;
    }
  }
  ~Impl() { shut_down(); }

  void shut_down() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    work.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  /// Memory for a batch: a buffer that nobody holds any longer, or a new one.
  Tensor buffer() {
    for (const Tensor& kept : buffers)
      if (kept.owns_memory_alone()) return kept;
    const DeviceScope device(Device::cpu);
    const TagScope tag(Tag::batch);
    const PhaseScope phase(Phase::data);
    const int64_t count = std::min<int64_t>(options.batch, source.size());
    const Segments whole = std::visit([&](const auto& settings) { return settings.segments(count); }, view);
    Tensor fresh = Tensor::empty({total_rows(whole), source.channels}, options.bytes ? DType::u8 : DType::f32);
    // One more than are needed if each batch is dropped before the next is asked for: for `batch = loader.next()`.
    if (buffers.size() <= static_cast<size_t>(batches_in_memory(options))) buffers.push_back(fresh);
    return fresh;
  }

  /// Begins the next batch: memory, indices, places. On the caller's thread, so that allocations keep their order.
  std::unique_ptr<Slot> schedule() {
    const int64_t epoch = scheduled / per_epoch, first = scheduled % per_epoch * options.batch;
    if (epoch != order_epoch) {
      order.resize(static_cast<size_t>(source.size()));
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
      if (options.shuffle) {
        Philox random(options.seed, Philox::mix(kShuffle, static_cast<uint64_t>(epoch)));
        for (size_t i = order.size() - 1; i > 0; --i) {
          std::swap(order[i], order[random.below(static_cast<uint32_t>(i + 1))]);
        }
      }
      order_epoch = epoch;
    }
    auto slot = std::make_unique<Slot>();
    Batch& batch = slot->batch;
    batch.epoch = epoch;
    batch.iteration = scheduled;
    const int64_t count = std::min<int64_t>(options.batch, source.size() - first);
    batch.indices.assign(order.begin() + first, order.begin() + first + count);
    batch.labels.assign(static_cast<size_t>(count), -1);
    const Segments segments = std::visit([&](const auto& settings) { return settings.segments(count); }, view);
    batch.images = buffer().slice(0, total_rows(segments)).with_segments(segments);
    slot->pixels = batch.images.raw();
    if (options.bytes)
      batch.scale = std::visit([&](const auto& settings) { return pixel_scale(settings, source.channels); }, view);
    ++scheduled;
    return slot;
  }

  /// Reads sample `wanted`, or the first one after it that can be read; returns which.
  int64_t read(int64_t wanted, Image& image) {
    const int64_t tries = std::min(source.size(), kMaxFailuresInARow);
    for (int64_t step = 0; step < tries; ++step) {
      const int64_t i = (wanted + step) % source.size();
      if (has_failures) {
        const std::lock_guard lock(failures_mutex);
        if (failures.count(i)) continue;
      }
      try {
        source.read(i, useful_side, image);
        if (image.channels != source.channels || image.height < 1 || image.width < 1) {
          throw Error(fmt::format("{}: got {} x {} pixels of {} channels, expected {} channels", source.key(i),
                                  image.height, image.width, image.channels, source.channels));
        }
        return i;
      } catch (const Error& error) {
        const std::lock_guard lock(failures_mutex);
        failures.emplace(i, error.what());
        has_failures = true;
      }
    }
    const std::lock_guard lock(failures_mutex);
    const auto known = failures.find(wanted);
    throw Error(fmt::format("{}: none of {} samples in a row can be read; the first: {}", source.name, tries,
                            known == failures.end() ? "" : known->second));
  }

  /// What is made of an image, to the places of sample b.
  template <class Number>
  void write_sample(const Slot& slot, int b, const Image& image, Philox& random, Number* segment) {
    thread_local std::vector<Number*> places;
    places.clear();
    for (const Segment& s : slot.batch.images.segments()) {
      const int64_t image_size = s.h * s.w * source.channels;
      for (int64_t n = b; n < s.n; n += slot.batch.size()) places.push_back(segment + n * image_size);
      segment += s.n * image_size;
    }
    if (const auto* crops = std::get_if<MultiCrop>(&view))
      make_crops(*crops, image, random, places);
    else
      make_view(std::get<EvalView>(view), image, places[0]);
  }

  /// Makes sample b of a slot. Never throws: an error is kept for the caller, of the first sample that has one.
  void make_sample(Slot& slot, int b) noexcept {
    try {
      thread_local Image image;
      const int64_t wanted = slot.batch.indices[static_cast<size_t>(b)];
      const int64_t taken = read(wanted, image);
      slot.batch.indices[static_cast<size_t>(b)] = taken;
      slot.batch.labels[static_cast<size_t>(b)] = source.label(taken);
      Philox random(options.seed, Philox::mix(static_cast<uint64_t>(slot.batch.epoch), static_cast<uint64_t>(wanted)));
      if (options.bytes)
        write_sample(slot, b, image, random, static_cast<uint8_t*>(slot.pixels));
      else
        write_sample(slot, b, image, random, static_cast<float*>(slot.pixels));
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!slot.error || b < slot.failed_sample) {
        slot.error = std::current_exception();
        slot.failed_sample = b;
      }
    }
  }

  void work_loop() {
    std::unique_lock lock(mutex);
    for (;;) {
      Slot* slot = nullptr;
      work.wait(lock, [&] {
        if (stop) return true;
        const auto open =
            std::find_if(slots.begin(), slots.end(), [](const auto& s) { return s->next < s->batch.size(); });
        slot = open == slots.end() ? nullptr : open->get();
        return slot != nullptr;
      });
      if (stop) return;
      const int b = slot->next++;
      ++active;
      lock.unlock();
      make_sample(*slot, b);
      lock.lock();
      --active;
      if (++slot->done == slot->batch.size() || active == 0) finished.notify_all();
    }
  }

  /// Drops what is being made.
  void flush() {
    std::unique_lock lock(mutex);
    for (const auto& slot : slots) slot->next = static_cast<int>(slot->batch.size());  // no new samples
    finished.wait(lock, [&] { return active == 0; });
    slots.clear();
  }

  std::unique_ptr<Slot> make_by_workers() {
    for (size_t waiting = slot_count(); waiting < static_cast<size_t>(options.prefetch); ++waiting) {
      auto slot = schedule();
      const std::lock_guard lock(mutex);
      slots.push_back(std::move(slot));
    }
    work.notify_all();
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return slots.front()->done == slots.front()->batch.size(); });
    auto slot = std::move(slots.front());
    slots.pop_front();
    return slot;
  }
  size_t slot_count() {
    const std::lock_guard lock(mutex);
    return slots.size();
  }

  std::unique_ptr<Slot> make_here() {
    auto slot = schedule();
    const int count = static_cast<int>(slot->batch.size());
#pragma omp parallel for schedule(dynamic)
    for (int b = 0; b < count; ++b) make_sample(*slot, b);
    return slot;
  }

  void seek(int64_t iteration) {
    flush();
    position = scheduled = iteration;
  }
};

Loader::Loader(Source source, View view, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(view), options)) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

Batch Loader::next() {
  auto slot = impl_->options.workers > 0 ? impl_->make_by_workers() : impl_->make_here();
  if (slot->error) {
    impl_->seek(impl_->position);
    std::rethrow_exception(slot->error);
  }
  ++impl_->position;
  return std::move(slot->batch);
}

int64_t batches_in_memory(const LoaderOptions& options) { return options.workers > 0 ? options.prefetch : 1; }

int64_t Loader::batches_per_epoch() const { return impl_->per_epoch; }
int64_t Loader::position() const { return impl_->position; }
const Source& Loader::source() const { return impl_->source; }
const LoaderOptions& Loader::options() const { return impl_->options; }

void Loader::seek(int64_t iteration) {
  if (iteration < 0) throw Error(fmt::format("loader: cannot go to iteration {}", iteration));
  impl_->seek(iteration);
}

std::vector<Failure> Loader::failures() const {
  const std::lock_guard lock(impl_->failures_mutex);
  std::vector<Failure> list;
  for (const auto& [index, reason] : impl_->failures) list.push_back({index, impl_->source.key(index), reason});
  return list;
}

std::string Loader::describe_failures() const {
  const std::lock_guard lock(impl_->failures_mutex);
  const auto& failures = impl_->failures;
  if (failures.empty()) return "";
  std::string text =
      fmt::format("{} of {} samples could not be read and were replaced: ", failures.size(), impl_->source.size());
  size_t shown = 0;
  for (auto it = failures.begin(); it != failures.end() && shown < 3; ++it, ++shown) {
    text += (shown ? "; " : "") + it->second;
  }
  return text + (failures.size() > shown ? "; ..." : "");
}

}  // namespace saccade::data
