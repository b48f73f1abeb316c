#include <saccade/core/batch_upload.h>
#include <saccade/kernels/cuda_device.h>

#include <cstring>

namespace saccade {

struct BatchUpload::Slot {
  kernels::CudaUpload way;
  Tensor memory;      ///< bytes on the device
  bool given = true;  ///< somebody may hold what it holds
};

BatchUpload::BatchUpload(Device device) : device_(device) {}
BatchUpload::~BatchUpload() = default;

BatchUpload::Slot& BatchUpload::free_slot(size_t bytes) {
  Slot* chosen = nullptr;
  for (const auto& slot :
       slots_)  // what nobody held at the call before was last used earlier than what was let go since
    if (!slot->given && static_cast<size_t>(slot->memory.numel()) >= bytes) chosen = slot.get();
  for (const auto& slot : slots_)
    if (slot->given && slot->memory.owns_memory_alone()) {
      slot->way.released();
      slot->given = false;
    }
  if (chosen != nullptr) return *chosen;
  const DeviceScope device(device_);
  const TagScope tag(Tag::batch);
  const PhaseScope phase(Phase::data);
  std::erase_if(slots_,
                [&](const auto& slot) { return !slot->given && static_cast<size_t>(slot->memory.numel()) < bytes; });
  slots_.push_back(std::make_unique<Slot>());
  slots_.back()->memory = Tensor::empty({static_cast<int64_t>(bytes)}, DType::u8);
  slots_.back()->way.released();  // the memory may be in use by what was asked before it was released
  return *slots_.back();
}

Batch BatchUpload::operator()(Batch batch) {
  if (device_ == Device::cpu || batch.images.device() == device_) return batch;
  if (device_ == Device::meta) {
    batch.images = batch.images.to(device_);
    return batch;
  }
  const size_t bytes = batch.images.bytes();
  Slot& slot = free_slot(bytes);
  std::memcpy(slot.way.staging(bytes), batch.images.raw(), bytes);
  slot.way.begin(bytes, slot.memory.raw());
  slot.way.join();
  slot.given = true;
  batch.images = slot.memory.viewed_as(batch.images.shape(), batch.images.dtype(), batch.images.segments());
  return batch;
}

}  // namespace saccade
