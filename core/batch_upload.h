#pragma once

#include <saccade/core/batch.h>

#include <memory>
#include <vector>

namespace saccade {

/// Brings batches to the device that trains. To CUDA: through pinned memory and by a stream of its own, so that a batch
/// travels while the GPU still computes on the one before; two batches lie on the device for that (Tag::batch). A
/// buffer is used again once nobody holds the batch that it held.
class BatchUpload {
 public:
  explicit BatchUpload(Device device);
  ~BatchUpload();
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;
  /// The same batch, its images on the device: at once to the host, in order to the device.
  Batch operator()(Batch batch);

 private:
  struct Slot;
  Slot& free_slot(size_t bytes);
  Device device_;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace saccade
