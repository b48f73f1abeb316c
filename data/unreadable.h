#pragma once

#include <saccade/data/epoch_order.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace saccade::data {

/// A sample that could not be read.
struct Failure {
  int64_t index;
  std::string key, reason;
};

/// Lines for people, each ended: how many samples have which kind of reason, the most frequent first, with the names of
/// the first three below `root`. Reasons that differ in numbers alone are of one kind.
std::string table_of_reasons(const std::vector<Failure>& failures, const std::string& root);

/// Thrown when more of a source cannot be read than is allowed.
class TooManyUnreadable : public Error {
 public:
  TooManyUnreadable(const std::string& sentence, std::string report) : Error(sentence), report_(std::move(report)) {}
  /// Lines for people: table_of_reasons().
  const std::string& report() const { return report_; }

 private:
  std::string report_;
};

/// The samples of a source that are known to be unreadable. All may be called by several threads at once.
class Unreadable {
 public:
  /// Notes a sample that failed at a batch of that epoch and iteration; the earliest batch counts, whoever was first.
  void add(int64_t index, int64_t epoch, int64_t iteration, const std::string& reason);
  /// Is it known to a batch of that epoch? Then the batch would have found it, too.
  bool met(int64_t index, int64_t epoch, int64_t iteration);
  /// Was it found in that epoch or before?
  bool contains(int64_t index, int64_t epoch) const;
  int64_t count() const { return count_; }
  /// Those found in epochs before that one.
  UnreadSamples before(int64_t epoch) const;
  std::vector<Failure> list(const Source& source) const;

  /// Those found by batches before that iteration, as lines of printable text: not what was found ahead of them, which
  /// may be well again when a run goes on.
  std::string state(const Source& source, int64_t iteration) const;
  /// Takes the place of what is known. What was noted of a sample that has another file's name by now is forgotten; a
  /// text that is no state() throws saccade::Error.
  void restore(const std::string& state, const Source& source);
  /// Takes in what several state()s say, beside what is known.
  void merge(const std::vector<std::string>& states, const Source& source);

 private:
  mutable std::mutex mutex_;
  UnreadSamples found_;
  std::atomic<int64_t> count_ = 0;
};

/// How much of a source may be unreadable, judged while an epoch goes on.
struct UnreadableLimit {
  static constexpr int64_t kLeastTried = 100;

  double share = 1;    ///< of the samples; 1: all
  int64_t count = 0;   ///< samples of the source
  bool drawn = false;  ///< places come in random order, so that those tried stand for the rest

  /// Is more unreadable than allowed? Sure if so many are known; likely when, of the samples tried in this epoch, more
  /// are than the luck of the draw explains, by 5 standard deviations of one without replacement. Never before
  /// kLeastTried have been tried.
  /// @param known          found in earlier epochs; they were not tried again
  /// @param tried, failed  of the others, in this epoch
  bool exceeded(int64_t known, int64_t tried, int64_t failed, bool first_epoch) const;
  /// So many samples tried in vain for one place say the same; the largest number if none does.
  int64_t most_in_vain() const;
};

}  // namespace saccade::data
