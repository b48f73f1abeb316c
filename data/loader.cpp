#include <fmt/format.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <span>
#include <thread>

namespace saccade::data {
namespace {

/// A batch in the making. Its samples are handed out one by one; the tensor belongs to it alone until it is complete.
struct Slot {
  Batch batch;
  std::vector<int64_t> places;  ///< of the samples: their own indices, whoever is shown there
  void* pixels = nullptr;
  int next = 0, done = 0;  ///< samples handed out, samples finished
  int failed_sample = 0;
  std::exception_ptr error;
};

/// What came of the places of one epoch that were handed out so far.
struct Tally {
  int64_t epoch = -1;  ///< -1: of none yet
  int64_t known = 0, tried = 0, failed = 0;
};

}  // namespace

struct Loader::Impl {
  Source source;
  View view;
  LoaderOptions options;
  int64_t per_epoch = 0;
  int64_t position = 0;   ///< of the batch next() returns
  int64_t scheduled = 0;  ///< of the batch that schedule() begins
  int64_t order_epoch = -1;
  std::vector<uint32_t> order;        ///< of the places, in epoch order_epoch
  std::map<int64_t, int64_t> filled;  ///< who is shown at places whose samples are known to be unreadable
  Tally tally;
  std::vector<Tensor> buffers;  ///< of whole batches; those in use are also held by their batch

  Unreadable unreadable;
  UnreadableLimit limit;

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
    if (!(options.max_unreadable >= 0 && options.max_unreadable <= 1)) {
      throw Error(
          fmt::format("loader: expected a share of 0 to 1 that may be unreadable, got {}", options.max_unreadable));
    }
    if (options.rank < 0 || options.rank >= options.ranks)
      throw Error(fmt::format("loader: process {} of {}: they are numbered from 0", options.rank, options.ranks));
    if (options.ranks > options.batch)
      throw Error(fmt::format("loader: a batch of {} for {} processes: each takes one image at least", options.batch,
                              options.ranks));
    if (source.size() < 1) throw Error(fmt::format("loader: the source {} is empty", source.name));
    if (source.size() > UINT32_MAX) throw Error(fmt::format("loader: {} samples are more than 2^32", source.size()));
    view.check();
    per_epoch = options.drop_last ? source.size() / options.batch : (source.size() + options.batch - 1) / options.batch;
    if (const int64_t left = source.size() % options.batch; !options.drop_last && left > 0 && left < options.ranks)
      throw Error(
          fmt::format("loader: the last batch of {} has {} images for {} processes: drop it, or take another "
                      "number",
                      source.name, left, options.ranks));
    limit = {.share = options.max_unreadable, .count = source.size(), .drawn = options.shuffle};
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
    const int64_t count = dist::share_of(std::min<int64_t>(options.batch, source.size()), 0, options.ranks).images();
    const Segments whole = view.segments(count);
    Tensor fresh = Tensor::empty({total_rows(whole), source.channels}, options.bytes ? DType::u8 : DType::f32);
    // One more than are needed if each batch is dropped before the next is asked for: for `batch = loader.next()`.
    if (buffers.size() <= static_cast<size_t>(batches_in_memory(options))) buffers.push_back(fresh);
    return fresh;
  }

  /// Orders an epoch by what is known of those before it, and counts its first places as handed out.
  void begin_epoch(int64_t epoch, int64_t handed_out) {
    order = order_of_places(source.size(), options.seed, epoch, options.shuffle);
    filled = fillers(source.size(), options.seed, epoch, unreadable.before(epoch));
    order_epoch = epoch;
    if (handed_out > 0) count_places(epoch, std::span<const uint32_t>(order.data(), static_cast<size_t>(handed_out)));
  }

  /// Counts places that are handed out.
  template <class Index>
  void count_places(int64_t epoch, std::span<const Index> places) {
    if (tally.epoch != epoch) tally = {.epoch = epoch, .known = std::ssize(unreadable.before(epoch))};
    for (const Index place : places) {
      if (unreadable.contains(place, epoch - 1)) continue;
      ++tally.tried;
      if (unreadable.contains(place, epoch)) ++tally.failed;
    }
  }

  [[noreturn]] void too_many(int64_t failed, int64_t tried) {
    const std::vector<Failure> found = unreadable.list(source);
    throw TooManyUnreadable(
        fmt::format(
            "{}: {} of {} images tried cannot be read, which is more than {:g} % of all (--max-unreadable moves "
            "the limit); with those tried in their places, {} were found:",
            source.name, failed, tried, 100 * options.max_unreadable, found.size()),
        table_of_reasons(found, source.name));
  }
  [[noreturn]] void none_readable() {
    throw Error(fmt::format("{}: none of the {} images can be read; the first: {}", source.name, source.size(),
                            unreadable.list(source).front().reason));
  }

  /// The last word on a batch that is made: it counts, unless it shows that too much is unreadable.
  void hand_out(const Slot& slot) {
    const int64_t epoch = slot.batch.epoch;
    count_places(epoch, std::span<const int64_t>(slot.places));
    if (limit.exceeded(tally.known, tally.tried, tally.failed, epoch == 0))
      too_many(tally.known + tally.failed, tally.known + tally.tried);
  }

  /// Begins the next batch: memory, indices, places. On the caller's thread, so that allocations keep their order.
  std::unique_ptr<Slot> schedule() {
    const int64_t epoch = scheduled / per_epoch, first = scheduled % per_epoch * options.batch;
    if (epoch != order_epoch) begin_epoch(epoch, first);
    auto slot = std::make_unique<Slot>();
    Batch& batch = slot->batch;
    batch.epoch = epoch;
    batch.iteration = scheduled;
    const dist::Share own =
        dist::share_of(std::min<int64_t>(options.batch, source.size() - first), options.rank, options.ranks);
    const int64_t count = own.images();
    slot->places.assign(order.begin() + first + own.first, order.begin() + first + own.last);
    batch.indices = slot->places;
    if (!filled.empty())
      for (int64_t& index : batch.indices)
        if (const auto at = filled.find(index); at != filled.end()) index = at->second;
    batch.labels.assign(static_cast<size_t>(count), -1);
    const Segments segments = view.segments(count);
    batch.images = buffer().slice(0, total_rows(segments)).with_segments(segments);
    slot->pixels = batch.images.raw();
    if (options.bytes) batch.scale = pixel_scale(view, source.channels);
    ++scheduled;
    return slot;
  }

  /// Reads what is to be shown at a place: `first` or who stands in for it. Returns which.
  int64_t read(const Batch& batch, int64_t place, int64_t first, Image& image) {
    int64_t index = first;
    for (int64_t attempt = 1;; ++attempt) {
      if (!unreadable.met(index, batch.epoch, batch.iteration)) {
        try {
          source.read(index, view.useful_side, image);
          if (image.channels != source.channels || image.height < 1 || image.width < 1) {
            throw Error(fmt::format("{}: got {} x {} pixels of {} channels, expected {} channels", source.key(index),
                                    image.height, image.width, image.channels, source.channels));
          }
          return index;
        } catch (const Error& error) {
          unreadable.add(index, batch.epoch, batch.iteration, error.what());
        }
      }
      if (unreadable.count() == source.size()) none_readable();
      if (attempt >= limit.most_in_vain()) too_many(attempt, attempt);
      index = stand_in(source.size(), options.seed, batch.epoch, place, attempt);
    }
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
    try {
      make_crops(view, image, random, places);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", source.key(slot.batch.indices[static_cast<size_t>(b)]), error.what()));
    }
  }

  /// Makes sample b of a slot. Never throws: an error is kept for the caller, of the first sample that has one.
  void make_sample(Slot& slot, int b) noexcept {
    try {
      thread_local Image image;
      const int64_t place = slot.places[static_cast<size_t>(b)], epoch = slot.batch.epoch;
      const int64_t taken = read(slot.batch, place, slot.batch.indices[static_cast<size_t>(b)], image);
      slot.batch.indices[static_cast<size_t>(b)] = taken;
      slot.batch.labels[static_cast<size_t>(b)] = source.label(taken);
      Philox random(options.seed, Philox::mix(static_cast<uint64_t>(epoch), static_cast<uint64_t>(place)));
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

  /// Begins batches as far ahead as is allowed. The first of an epoch waits until the epoch before it is finished, for
  /// its order takes what all of that found to be unreadable.
  void work_ahead() {
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        if (slots.size() >= static_cast<size_t>(options.prefetch)) break;
        if (scheduled % per_epoch == 0 &&
            std::any_of(slots.begin(), slots.end(), [](const auto& slot) { return slot->done < slot->batch.size(); }))
          break;
      }
      auto slot = schedule();
      const std::lock_guard lock(mutex);
      slots.push_back(std::move(slot));
    }
    work.notify_all();
  }

  std::unique_ptr<Slot> make_by_workers() {
    work_ahead();
    {
      std::unique_lock lock(mutex);
      finished.wait(lock, [&] { return slots.front()->done == slots.front()->batch.size(); });
    }
    work_ahead();  // into the next epoch, if this batch was all it waited for
    const std::lock_guard lock(mutex);
    auto slot = std::move(slots.front());
    slots.pop_front();
    return slot;
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
    order_epoch = tally.epoch = -1;
  }
};

Loader::Loader(Source source, View view, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(view), options)) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

Batch Loader::next() {
  auto slot = impl_->options.workers > 0 ? impl_->make_by_workers() : impl_->make_here();
  try {
    if (slot->error) std::rethrow_exception(slot->error);
    impl_->hand_out(*slot);
  } catch (...) {
    impl_->seek(impl_->position);
    throw;
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

std::string Loader::state() const { return impl_->unreadable.state(impl_->source, impl_->position); }

void Loader::restore(const std::string& state) {
  impl_->seek(impl_->position);
  impl_->unreadable.restore(state, impl_->source);
}

void Loader::merge(const std::vector<std::string>& states) {
  impl_->seek(impl_->position);
  impl_->unreadable.merge(states, impl_->source);
}

std::vector<Failure> Loader::failures() const { return impl_->unreadable.list(impl_->source); }

std::string Loader::describe_failures() const {
  const std::vector<Failure> list = failures();
  if (list.empty()) return "";
  std::string text =
      fmt::format("{} of {} samples could not be read and were replaced: ", list.size(), impl_->source.size());
  const size_t shown = std::min<size_t>(list.size(), 3);
  for (size_t i = 0; i < shown; ++i) text += (i == 0 ? "" : "; ") + list[i].reason;
  return text + (list.size() > shown ? "; ..." : "");
}

}  // namespace saccade::data
