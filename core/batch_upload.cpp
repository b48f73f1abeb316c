#include <saccade/core/batch_upload.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/kernels/cuda_device.h>

#include <algorithm>
#include <cstring>

namespace saccade {

struct BatchUpload::Slot {
  kernels::CudaUpload way;
  Tensor memory;      ///< bytes on the device
  bool given = true;  ///< somebody may hold what it holds
};

BatchUpload::BatchUpload(Device device, DType numbers) : device_(device), numbers_dtype_(numbers) {}
BatchUpload::~BatchUpload() = default;

BatchUpload::Slot& BatchUpload::free_slot(size_t bytes) {
  Slot* chosen = nullptr;
  // What nobody held at the call before was last used earlier than what was let go since.
  for (const auto& slot : slots_)
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

Tensor BatchUpload::numbers_of(const Tensor& bytes, const kernels::PixelScale& scale) {
  const int64_t channels = bytes.dim(-1);
  if (scale.factor[0] == 0.f) fail("BatchUpload: a batch of bytes came without the scale that makes them numbers");
  const size_t needed = static_cast<size_t>(bytes.numel()) * size_of(numbers_dtype_);
  std::erase_if(numbers_, [&](const Tensor& t) { return t.owns_memory_alone() && t.bytes() < needed; });
  auto free = std::find_if(numbers_.begin(), numbers_.end(), [](const Tensor& t) { return t.owns_memory_alone(); });
  if (free == numbers_.end()) {
    const DeviceScope device(device_);
    const TagScope tag(Tag::batch);
    const PhaseScope phase(Phase::data);
    free = numbers_.insert(free, Tensor::empty({bytes.numel()}, numbers_dtype_));
  }
  const Tensor numbers = free->viewed_as(bytes.shape(), numbers_dtype_, bytes.segments());
  compute(device_, kernels::CropsToBatch{bytes.segments(), channels, static_cast<const uint8_t*>(bytes.raw()), scale,
                                         numbers_dtype_, numbers.raw()});
  return numbers;
}

Batch BatchUpload::operator()(Batch batch) {
  const bool are_bytes = batch.images.dtype() == DType::u8;
  if (device_ == Device::cuda && batch.images.device() != device_) {
    const size_t bytes = batch.images.bytes();
    Slot& slot = free_slot(bytes);
    std::memcpy(slot.way.staging(bytes), batch.images.raw(), bytes);
    slot.way.begin(bytes, slot.memory.raw());
    slot.way.join();
    slot.given = true;
    batch.images = slot.memory.viewed_as(batch.images.shape(), batch.images.dtype(), batch.images.segments());
    if (are_bytes) {
      batch.images = numbers_of(batch.images, batch.scale);
      slot.way.released();  // all that reads the bytes has been asked for
      slot.given = false;
    }
    return batch;
  }
  if (device_ != Device::cpu && batch.images.device() != device_) batch.images = batch.images.to(device_);
  if (are_bytes) batch.images = numbers_of(batch.images, batch.scale);
  return batch;
}

}  // namespace saccade
