#pragma once

#include <saccade/core/batch.h>

#include <memory>
#include <vector>

namespace saccade {

/// Brings batches to the device that trains, and makes numbers of those that are bytes, there: batches of bytes travel
/// as a quarter of what they become, bit for bit what a loader that normalises would have delivered.
///
/// To CUDA: through pinned memory and by a stream of its own, so that a batch travels while the GPU still computes on
/// the one before. For that two batches lie on the device (Tag::batch), or of bytes one and its numbers. A buffer is
/// used again once nobody holds the batch that it held.
class BatchUpload {
 public:
  /// @param numbers  what bytes become: f32, f16 or bf16
  explicit BatchUpload(Device device, DType numbers = DType::f32);
  ~BatchUpload();
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;
  /// The same batch, its images numbers on the device: at once to the host, in order to the device. Throws
  /// saccade::Error on bytes that come without their scale.
  Batch operator()(Batch batch);

 private:
  struct Slot;
  Slot& free_slot(size_t bytes);
  Tensor numbers_of(const Tensor& bytes, const kernels::PixelScale& scale);

  Device device_;
  DType numbers_dtype_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Tensor> numbers_;  ///< memory for what bytes become
};

}  // namespace saccade
