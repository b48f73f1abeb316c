#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <random>

#include "state.h"
#include "support/simt/simt.h"

namespace cuda_doubles {
namespace {

struct Stream;

/// Shared by an entry and all who wait for it.
struct Done {
  Stream* stream;
  bool done = false;
  float ms = 0;  ///< when, by a clock that counts entries
};
using Token = std::shared_ptr<Done>;

/// Waits for `after`, if any, then does `work`, if any.
struct Entry {
  std::string name;
  std::function<void()> work;
  Token token, after;
};

struct Stream {
  bool blocking;  ///< ordered with the default stream
  std::deque<Entry> queue;
  Token last = nullptr;
  bool ready() const { return !queue.empty() && (!queue.front().after || queue.front().after->done); }
};

struct Event {
  bool timed;
  Token recorded = nullptr;
};

struct Streams {
  std::mt19937 random{options().seed};
  std::list<Stream> all;  // destroyed ones as well: their work is still to be done
  std::map<cudaStream_t, Stream*> streams;
  std::map<cudaEvent_t, Event> events;
  Stream* by_default = nullptr;
  int error = 0, unrecorded_waits = 0;
  float clock_ms = 0;
};
Streams& state() {
  static Streams& state = *new Streams;
  return state;
}

Stream& default_stream() {
  Streams& s = state();
  if (!s.by_default) s.by_default = &s.all.emplace_back(Stream{.blocking = false, .queue = {}});
  return *s.by_default;
}

Stream& stream_of(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) return default_stream();
  const auto found = state().streams.find(handle);
  if (found == state().streams.end()) {
    throw Refusal{cudaErrorInvalidResourceHandle,
                  fmt::format("{} is no stream, or was destroyed", static_cast<void*>(handle))};
  }
  return *found->second;
}

Event& event_of(cudaEvent_t handle) {
  const auto found = state().events.find(handle);
  if (found == state().events.end()) {
    throw Refusal{cudaErrorInvalidResourceHandle,
                  fmt::format("{} is no event, or was destroyed", static_cast<void*>(handle))};
  }
  return found->second;
}

Token push(Stream& stream, std::string name, std::function<void()> work, Token after) {
  stream.last = std::make_shared<Done>(&stream);
  stream.queue.push_back({std::move(name), std::move(work), stream.last, std::move(after)});
  return stream.last;
}

/// With the order that the default stream makes: it waits for all before, and all after for it.
Token put(Stream& stream, std::string name, std::function<void()> work, Token after = nullptr) {
  if (&stream == state().by_default) {
    for (Stream& other : state().all) {
      if (other.blocking && other.last && !other.last->done) push(stream, "default stream's wait", {}, other.last);
    }
  } else if (stream.blocking && default_stream().last && !default_stream().last->done) {
    push(stream, "wait for the default stream", {}, default_stream().last);
  }
  return push(stream, std::move(name), std::move(work), std::move(after));
}

/// After an error nothing more is done, as on a device.
void step(Stream& stream) {
  Streams& s = state();
  const Entry entry = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (entry.work && s.error == 0) {
    try {
      entry.work();
    } catch (const Refusal& refusal) {
      s.error = refusal.code;
      complain(fmt::format("in a stream, {}: {}", entry.name, refusal.sentence));
    } catch (const std::exception& error) {
      s.error = cudaErrorLaunchFailure;
      complain(fmt::format("in a stream, {}: {}", entry.name, error.what()));
    }
  }
  s.clock_ms += 0.001f;
  entry.token->ms = s.clock_ms;
  entry.token->done = true;
}

Stream* any_ready() {
  std::vector<Stream*> ready;
  for (Stream& stream : state().all) {
    if (stream.ready()) ready.push_back(&stream);
  }
  return ready.empty() ? nullptr : ready[state().random() % ready.size()];
}

/// What the token needs, and between times, and afterwards, other things that could just as well run.
void run_until(const Token& token) {
  if (!token || token->done) return;
  const OpenMemory open;
  const unsigned others = std::array{0u, 30u, 90u}[state().random() % 3];  // percent
  while (!token->done) {
    Stream* needed = token->stream;
    while (!needed->ready()) needed = needed->queue.front().after->stream;
    step(state().random() % 100 < others ? *any_ready() : *needed);
  }
  while (state().random() % 100 < others) {
    Stream* further = any_ready();
    if (!further) break;
    step(*further);
  }
}

void submit(void* stream, std::function<void()> work) {
  enqueue(static_cast<cudaStream_t>(stream), std::move(work), "kernel");
}
[[maybe_unused]] const bool kernels_come_here = (simt::submit = submit, true);

}  // namespace

bool enqueue(cudaStream_t stream, std::function<void()> work, std::string name) {
  return runtime_call("enqueue", [&] { enqueue_or_throw(stream, std::move(work), std::move(name)); }) == cudaSuccess;
}

void enqueue_or_throw(cudaStream_t stream, std::function<void()> work, std::string name) {
  put(stream_of(stream), std::move(name), std::move(work));
}

void synchronize(cudaStream_t stream) {
  run_until(stream_of(stream).last);
  if (state().error) throw Refusal{state().error};
}

void synchronize_device() {
  std::vector<Token> last;
  for (const Stream& stream : state().all) last.push_back(stream.last);
  std::shuffle(last.begin(), last.end(), state().random);
  for (const Token& token : last) run_until(token);
  if (state().error) throw Refusal{state().error};
}

int stream_error() { return state().error; }

bool is_stream(cudaStream_t stream) {
  const std::lock_guard lock(mutex());
  return !stream || stream == cudaStreamLegacy || state().streams.contains(stream);
}

int unrecorded_waits() {
  const std::lock_guard lock(mutex());
  return state().unrecorded_waits;
}

size_t pending() {
  const std::lock_guard lock(mutex());
  size_t count = 0;
  for (const Stream& stream : state().all) count += stream.queue.size();
  return count;
}

void reset_streams() { state() = Streams{}; }

void count_streams(Live& live) {
  live.streams = static_cast<int>(state().streams.size());
  live.events = static_cast<int>(state().events.size());
}

namespace {

cudaError_t new_stream(const char* function, cudaStream_t* stream, unsigned flags) {
  return runtime_call(function, [&] {
    if (!stream || flags > cudaStreamNonBlocking)
      throw Refusal{cudaErrorInvalidValue, "no place for it, or flags unknown"};
    *stream = static_cast<cudaStream_t>(new_handle());
    state().streams[*stream] = &state().all.emplace_back(Stream{.blocking = flags == cudaStreamDefault, .queue = {}});
  });
}

}  // namespace
}  // namespace cuda_doubles

using namespace cuda_doubles;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return new_stream("cudaStreamCreateWithFlags", stream, flags);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return new_stream("cudaStreamCreateWithPriority", stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return runtime_call("cudaDeviceGetStreamPriorityRange", [=] {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return runtime_call(
      "cudaStreamDestroy",
      [=] {
        if (!stream) throw Refusal{cudaErrorInvalidResourceHandle, "the default stream cannot be destroyed"};
        stream_of(stream);
        state().streams.erase(stream);
      },
      AfterError::work);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return runtime_call("cudaStreamSynchronize", [=] { synchronize(stream); });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return runtime_call("cudaStreamQuery", [=] {
    const Token& last = stream_of(stream).last;
    if (last && !last->done) throw Refusal{cudaErrorNotReady};
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return runtime_call("cudaStreamWaitEvent", [=] {
    Stream& waiting = stream_of(stream);
    const Token& token = event_of(event).recorded;
    if (flags != 0) throw Refusal{cudaErrorInvalidValue, "flags other than 0"};
    if (!token) ++state().unrecorded_waits;
    if (token && !token->done) put(waiting, "wait for an event", {}, token);
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return runtime_call("cudaEventCreateWithFlags", [=] {
    if (!event || flags > 3) throw Refusal{cudaErrorInvalidValue, "no place for it, or flags unknown"};
    *event = static_cast<cudaEvent_t>(new_handle());
    state().events[*event] = {.timed = (flags & cudaEventDisableTiming) == 0};
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return runtime_call("cudaEventRecord", [=] {
    Event& recorded = event_of(event);
    recorded.recorded = put(stream_of(stream), "record of an event", {});
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return runtime_call("cudaEventQuery", [=] {
    const Token& token = event_of(event).recorded;
    if (token && !token->done) throw Refusal{cudaErrorNotReady};
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return runtime_call("cudaEventSynchronize", [=] {
    run_until(event_of(event).recorded);
    if (state().error) throw Refusal{state().error};
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return runtime_call(
      "cudaEventDestroy",
      [=] {
        event_of(event);
        state().events.erase(event);
      },
      AfterError::work);
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return runtime_call("cudaEventElapsedTime", [=] {
    const Event &from = event_of(start), &to = event_of(end);
    if (!from.timed || !to.timed) throw Refusal{cudaErrorInvalidResourceHandle, "an event was made without timing"};
    if (!from.recorded || !to.recorded) throw Refusal{cudaErrorInvalidResourceHandle, "an event was never recorded"};
    if (!from.recorded->done || !to.recorded->done) throw Refusal{cudaErrorNotReady};
    *ms = to.recorded->ms - from.recorded->ms;
  });
}
