/// Processes joined by MPI: tensors of the CPU. Exchanges that go on while the program computes run in a thread of
/// their own, on a communicator of their own, because MPI makes no progress on its own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mpi.h>
#include <saccade/core/dist/launched.h>
#include <saccade/core/dist/mpi.h>
#include <saccade/core/layer.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <future>
#include <mutex>
#include <set>
#include <thread>

namespace saccade::dist {
namespace {

void check(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail(fmt::format("MPI: {}: {}", what, std::string_view(text, static_cast<size_t>(length))));
}

/// MPI, while somebody uses it. MPI cannot be entered twice in a process.
struct Session {
  explicit Session(std::chrono::duration<double> wait_limit) : limit(wait_limit) {
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &threads), "it could not be started");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &calls), "a communicator of those who wait");
    MPI_Comm_rank(calls, &rank);
    MPI_Comm_size(calls, &size);
  }
  ~Session() {
    if (std::uncaught_exceptions() > 0) return;  // others still wait for this process: mpirun ends them
    MPI_Comm_free(&calls);
    MPI_Finalize();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  /// Somebody has kept this process waiting beyond the limit: throws, saying who. All who wait tell the first process;
  /// who does not is who is waited for.
  [[noreturn]] void give_up(const char* name) const {
    using namespace std::chrono_literals;
    constexpr int kWaits = 1;
    const auto words = [&](const std::string& who) {
      return fmt::format("{} not answer: process {} has waited {:.3g} s for an {}", who, rank, limit.count(), name);
    };
    if (rank != 0) {
      MPI_Request told = MPI_REQUEST_NULL;
      MPI_Isend(nullptr, 0, MPI_BYTE, 0, kWaits, calls, &told);
      std::this_thread::sleep_for(8s);  // in which the first process ends all
      fail(words(fmt::format("process 0 of {} does", size)));
    }
    std::set<int> silent;
    for (int other = 1; other < size; ++other) silent.insert(other);
    for (const auto begin = std::chrono::steady_clock::now(); std::chrono::steady_clock::now() - begin < 4s;) {
      int there = 0;
      MPI_Status status;
      if (MPI_Iprobe(MPI_ANY_SOURCE, kWaits, calls, &there, &status) == MPI_SUCCESS && there != 0) {
        MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kWaits, calls, MPI_STATUS_IGNORE);
        silent.erase(status.MPI_SOURCE);
      } else {
        std::this_thread::sleep_for(10ms);
      }
    }
    if (silent.empty()) fail(words("an exchange was not begun by all processes, which do"));
    fail(words(fmt::format("process{} {} of {} {}", silent.size() > 1 ? "es" : "", fmt::join(silent, ", "), size,
                           silent.size() > 1 ? "do" : "does")));
  }

  std::chrono::duration<double> limit;
  int threads = 0;                 ///< what was granted
  MPI_Comm calls = MPI_COMM_NULL;  ///< of those who have waited too long
  int rank = 0, size = 1;
};

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::i32:
      return MPI_INT32_T;
    case DType::i64:
      return MPI_INT64_T;
    default:
      return MPI_BYTE;
  }
}

class Mpi final : public Communicator {
 public:
  Mpi(std::shared_ptr<Session> session, MPI_Comm own) : session_(std::move(session)), comm_(own) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    check(MPI_Comm_rank(comm_, &rank_), "rank");
    check(MPI_Comm_size(comm_, &size_), "size");
    check(MPI_Comm_dup(comm_, &aside_), "a second communicator");
    MPI_Comm_set_errhandler(aside_, MPI_ERRORS_RETURN);
  }
  ~Mpi() override {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    asked_.notify_all();
    if (thread_.joinable()) thread_.join();
    if (std::uncaught_exceptions() > 0) return;
    MPI_Comm_free(&aside_);
    MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Communicator> split(int color) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, rank_, &part), "split");
    return std::make_unique<Mpi>(session_, part);
  }
  [[noreturn]] void abort(int status) override {
    MPI_Abort(MPI_COMM_WORLD, status);
    std::_Exit(status);
  }

 private:
  /// MPI counts in int.
  static constexpr int64_t kMost = int64_t{1} << 30;

  void run(const Collective& collective) override { run(collective, comm_, false); }

  /// MPI's own waiting never sleeps, and takes the core from whoever is waited for where processes outnumber cores, or
  /// a thread of this process computes meanwhile.
  void wait(MPI_Request request, const char* name, bool computing, bool limited = true) const {
    limited = limited && session_->limit.count() > 0;
    using namespace std::chrono;
    constexpr auto busy = microseconds(100), longest = microseconds(200);
    const auto begin = steady_clock::now();
    for (auto pause = microseconds(10);;) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), name);
      if (done != 0) return;
      if (limited && steady_clock::now() - begin > session_->limit) session_->give_up(name);
      if (!computing && has_core_) {
        std::this_thread::yield();
        continue;
      }
      if (steady_clock::now() - begin < busy) continue;
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, longest);
    }
  }

  void run(const Collective& c, MPI_Comm comm, bool computing) const {
    using Kind = Collective::Kind;
    const char* name = name_of(c.kind).data();
    const auto bytes = static_cast<int64_t>(size_of(c.dtype));
    const MPI_Op op = c.op == Reduce::max ? MPI_MAX : MPI_SUM;
    MPI_Request request = MPI_REQUEST_NULL;
    if (c.kind == Kind::barrier) {
      check(MPI_Ibarrier(comm, &request), name);
      return wait(request, name, computing, false);
    }
    if (c.kind == Kind::all_reduce || c.kind == Kind::broadcast) {
      const int64_t most = kMost / bytes;
      for (int64_t first = 0; first < c.count; first += most) {
        const auto count = static_cast<int>(std::min(most, c.count - first));
        char* x = static_cast<char*>(c.out) + first * bytes;
        check(c.kind == Kind::all_reduce
                  ? MPI_Iallreduce(MPI_IN_PLACE, x, count, type_of(c.dtype), op, comm, &request)
                  : MPI_Ibcast(x, static_cast<int>(count * bytes), MPI_BYTE, c.root, comm, &request),
              name);
        wait(request, name, computing);
      }
      return;
    }
    if (c.count * bytes > kMost)
      fail(fmt::format("{}: {} bytes of each process; MPI takes {} at once", name, c.count * bytes, kMost));
    const auto count = static_cast<int>(c.count), part = static_cast<int>(c.count * bytes);
    check(c.kind == Kind::all_gather
              ? MPI_Iallgather(c.in, part, MPI_BYTE, c.out, part, MPI_BYTE, comm, &request)
              : MPI_Ireduce_scatter_block(c.in, c.out, count, type_of(c.dtype), op, comm, &request),
          name);
    wait(request, name, computing);
  }

  Pending start(const Collective& c) override {
    auto task = std::make_shared<std::packaged_task<void()>>([this, c] { run(c, aside_, true); });
    const std::shared_future<void> done = task->get_future().share();
    if (session_->threads < MPI_THREAD_MULTIPLE) {
      (*task)();
    } else {
      const std::lock_guard lock(mutex_);
      if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
      tasks_.push_back(std::move(task));
      asked_.notify_one();
    }
    return Pending([done] { done.get(); });
  }

  void work() {
    for (;;) {
      std::shared_ptr<std::packaged_task<void()>> task;
      {
        std::unique_lock lock(mutex_);
        asked_.wait(lock, [this] { return ends_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      (*task)();
    }
  }

  std::shared_ptr<Session> session_;
  MPI_Comm comm_ = MPI_COMM_NULL, aside_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  bool has_core_ = launched().local_size <= sysconf(_SC_NPROCESSORS_ONLN);  ///< each process of this machine
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<std::shared_ptr<std::packaged_task<void()>>> tasks_;
  bool ends_ = false;
};

}  // namespace

std::unique_ptr<Communicator> mpi_world(std::chrono::duration<double> limit) {
  auto session = std::make_shared<Session>(limit);
  MPI_Comm own = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &own), "the communicator of all");
  return std::make_unique<Mpi>(std::move(session), own);
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string_view all(text, static_cast<size_t>(length));
  return std::string(all.substr(0, all.find_first_of(",\n")));
}

}  // namespace saccade::dist
