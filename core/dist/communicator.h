#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Processes that compute together. Their exchanges are collective: each process of a communicator calls the same
/// functions in the same order, with tensors of the same sizes. On the meta device nothing is exchanged; all that is
/// checked and allocated is as elsewhere, so that a step of many processes can be rehearsed by one.

namespace saccade::dist {

enum class Reduce : uint8_t { sum, max };

/// One exchange, as a value: what an engine (MPI, NCCL) carries out.
struct Collective {
  enum class Kind : uint8_t { all_reduce, all_gather, reduce_scatter, broadcast, barrier } kind = Kind::barrier;
  const void* in = nullptr;
  void* out = nullptr;
  int64_t count = 0;  ///< elements of one process's part; of an all-reduce and a broadcast: of the whole
  DType dtype = DType::u8;
  Reduce op = Reduce::sum;
  int root = 0;
};
std::string_view name_of(Collective::Kind kind);

/// An exchange that goes on while the program computes. Its tensor is neither read nor written before wait() returned.
class Pending {
 public:
  Pending() = default;
  explicit Pending(std::function<void()> wait) : wait_(std::move(wait)) {}
  /// Returns when the result is there; throws what went wrong. Later calls return at once.
  void wait();

 private:
  std::function<void()> wait_;
};

/// What was exchanged so far, by kind of collective.
struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;  ///< of this process's own tensors: what it gave, or of a broadcast took
};

/// A group of processes, numbered from 0. The processes of a program are world()'s.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;  ///< this process's number
  virtual int size() const = 0;  ///< how many there are
  /// Where the tensors lie that it exchanges, beside those of the meta device.
  virtual Device device() const { return Device::cpu; }

  /// x of each process becomes the sum, or the largest, over all: the same bits everywhere. f32, i32 or i64.
  void all_reduce(const Tensor& x, Reduce op = Reduce::sum);
  /// The same, without waiting for it: exchanges of this kind have an order of their own, beside that of all others.
  Pending start_all_reduce(const Tensor& x, Reduce op = Reduce::sum);
  /// all (size, ...own's shape): the parts of all processes, in order of their numbers. Any dtype.
  void all_gather(const Tensor& own, const Tensor& all);
  /// The same of bytes of the host, as many of each process.
  void all_gather(std::span<const uint8_t> own, std::span<uint8_t> all);
  /// own becomes this process's part of the sum over processes of all (size, ...own's shape).
  void reduce_scatter(const Tensor& all, const Tensor& own);
  /// x of each process becomes that of `root`. Any dtype.
  void broadcast(const Tensor& x, int root = 0);
  /// Returns when all have called it, however long that takes: where one works while the others wait.
  void barrier();
  /// The processes that give the same color, in the order of their numbers here.
  virtual std::unique_ptr<Communicator> split(int color) = 0;
  /// Ends all processes, of world() too, at once; what a process does that cannot go on, so that none waits for it.
  [[noreturn]] virtual void abort(int status) = 0;

  const std::map<Collective::Kind, Traffic>& traffic() const { return traffic_; }

 protected:
  virtual void run(const Collective& collective) = 0;
  virtual Pending start(const Collective& collective) = 0;

 private:
  /// True where there is something to exchange; counts it.
  bool begins(const Collective& collective, const Tensor& x);
  std::map<Collective::Kind, Traffic> traffic_;
};

/// A process alone.
std::unique_ptr<Communicator> alone();

/// The first of so many processes that do not exist: for a rehearsal on the meta device, whose exchanges it takes.
/// Anything else is an error.
std::unique_ptr<Communicator> rehearsed(int size);

/// @name Small things that all processes are to know, in the order of the processes
/// @{
/// As many numbers of each.
std::vector<std::vector<int64_t>> numbers_of_all(Communicator& ranks, const std::vector<int64_t>& own);
std::vector<std::string> texts_of_all(Communicator& ranks, const std::string& own);
/// @}

}  // namespace saccade::dist
