#pragma once

#include <saccade/core/batch.h>
#include <saccade/data/source.h>
#include <saccade/data/unreadable.h>
#include <saccade/data/view.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace saccade::data {

struct LoaderOptions {
  int batch = 64;  ///< images, of all processes together
  /// Threads that make batches ahead of their use. 0: the calling thread makes each batch when it is asked for, with
  /// the OpenMP threads of the process, which is best when the training computes on the same cores.
  int workers = 0;
  uint64_t seed = 0;
  int prefetch = 2;       ///< batches being made or waiting, with workers; memory is bounded by it
  bool drop_last = true;  ///< an epoch ends before a batch that would be too small
  bool shuffle = true;    ///< a new order each epoch, a function of seed and epoch
  /// Batches of bytes (DType::u8), a quarter of the memory, with the scale that makes them the same numbers bit for
  /// bit: for BatchUpload, which does so where the training runs.
  bool bytes = false;
  /// Share of the samples that may be unreadable before next() throws TooManyUnreadable: see UnreadableLimit. 1: all
  /// but one.
  double max_unreadable = 0.1;
  /// Of `ranks` processes number `rank` gets its share of each batch (dist::share_of), as if one had made the batch.
  int rank = 0, ranks = 1;
};

/// How many whole batches a loader has memory for when each is dropped before the next is asked for.
int64_t batches_in_memory(const LoaderOptions& options);

/// Turns a source into batches, epoch after epoch without end.
///
/// What is in a batch depends on the source, the view, seed, batch, drop_last, shuffle and its iteration: not on the
/// number of workers or threads, nor on where the run was started or resumed (with its state(), where samples could not
/// be read). The random numbers of a sample are Philox(seed, mix(epoch, index)).
///
/// The memory of its batches is allocated when the first is asked for, by the thread that asks, and used again and
/// again: whatever the workers do, the loader's place in the arena stays as it is. A batch's memory is free for another
/// once the last handle on its images is dropped, which is to happen on the thread that calls next(); a program that
/// keeps batches gets new memory for more.
///
/// A sample that cannot be read is listed in failures() and not tried again; at its place another is shown, which its
/// own random numbers draw (see stand_in()), with the place's crops. From the next epoch on, the places of all that is
/// known to be unreadable are filled evenly from the others (see fillers()). So an epoch keeps its length. The batch's
/// `indices` and `labels` are those of the sample that is shown. (A program that writes one row a sample writes row
/// indices[b], and leaves the rows of failures() out.)
class Loader {
 public:
  /// Throws saccade::Error when the options or the view are out of range, or the source is smaller than a batch that
  /// has to be full.
  Loader(Source source, View view, LoaderOptions options = {});
  /// Stops the workers, in the middle of a batch if need be.
  ~Loader();
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  /// The next batch. Throws TooManyUnreadable at the batch that made too many, saccade::Error when no sample at all can
  /// be read, and whatever else a source threw; the position then stays, and calling again tries again.
  Batch next();

  int64_t batches_per_epoch() const;
  /// Iteration of the batch that next() will return: with state(), all there is to save for an exact resume.
  int64_t position() const;
  /// Continues with batch `iteration`, counted from 0 over all epochs.
  void seek(int64_t iteration);
  /// What the batches so far found to be unreadable, as printable lines: saved between two batches and restored before
  /// seek(), it makes the batches those of a loader that went on.
  std::string state() const;
  /// Takes back a state(). Samples whose files have other names by now are tried anew. Throws saccade::Error for a text
  /// that is none.
  void restore(const std::string& state);
  /// Takes in what the loaders of all processes found to be unreadable, as state() says it there. Called at the
  /// beginning of each epoch, it makes their batches the shares of those of one loader.
  void merge(const std::vector<std::string>& states);

  const Source& source() const;
  const LoaderOptions& options() const;
  /// What could not be read so far, in order of index.
  std::vector<Failure> failures() const;
  /// One sentence on them: how many, and the first few with their reasons. Empty when there are none.
  std::string describe_failures() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saccade::data
