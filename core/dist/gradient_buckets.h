#pragma once

#include <saccade/core/autograd.h>
#include <saccade/core/dist/communicator.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace saccade::dist {

/// For as long as it lives, a backward() ends with the gradients of these parameters summed over all processes. They
/// are put side by side into buckets, in the order in which backward is expected to finish them (the last first), and a
/// bucket is exchanged while backward goes on. A parameter's gradient then lies in its bucket.
///
/// Of several backwards whose gradients add up, only the last exchanges (BackwardOptions::last). An optimiser within
/// backward updates a parameter once its bucket has come.
class GradientBuckets {
 public:
  static constexpr int64_t kBytes = int64_t{25} << 20;  ///< of a bucket; a larger gradient has one of its own

  /// @param parameters  the same, in the same order, in every process; f32
  /// @param ranks       must outlive the buckets
  GradientBuckets(std::vector<Tensor> parameters, Communicator& ranks, int64_t bytes = kBytes);
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

 private:
  struct Bucket {
    std::vector<size_t> parameters;
    int64_t elements = 0, ready = 0;
    Tensor memory;
    std::vector<std::function<void()>> resume;  ///< what waits for its sums
    Pending sums;
  };

  void on_ready(size_t parameter, autograd::GradientReady& ready);
  /// Puts the gradients that there are into the bucket, and begins to sum them.
  void send(Bucket& bucket);
  /// Waits for the sums of the bucket that was sent first.
  void receive();
  void finish();

  std::vector<Tensor> parameters_;
  Communicator& ranks_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;
  std::vector<bool> reached_;  ///< parameters with a gradient that is not exchanged yet
  std::deque<size_t> under_way_;
  bool ends_ = false;  ///< finish() is called at the end of this backward
  std::vector<std::shared_ptr<const autograd::Hook>> hooks_;
};

}  // namespace saccade::dist
