#pragma once

#include <saccade/core/allocator.h>
#include <saccade/kernels/device.h>
#include <saccade/kernels/dtype.h>
#include <saccade/kernels/segments.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace saccade {

using Shape = std::vector<int64_t>;
std::string to_string(const Shape& shape);

namespace autograd {
struct Node;
struct Remake;
struct Hook;
class GradientReady;
enum class HookStage : uint8_t;
}  // namespace autograd

/// How Tensor::backward() runs.
struct BackwardOptions {
  /// False where more backwards follow whose gradients are added to these: hooks are told, so that work on sums (an
  /// exchange between processes) is done once.
  bool last = true;
};

/// Memory shared by the tensors that view it. Its version counts in-place writes, so that the tape can tell when a
/// tensor saved for backward has been changed.
struct Storage {
  Storage(size_t bytes, Device device, Tag tag, std::span<const int64_t> shape, DType dtype);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Allocator::Block block;
  Device device;
  uint64_t version = 0;
};

/// A dtype, a shape, and a dense row-major range of a Storage. A handle: copies share the same tensor.
///
/// An image tensor is a matrix of pixel rows by channels, (sum of N*H*W, C), with its segments: one (N, H, W) a
/// resolution. The only views are reshape and slices of the first dimension; both drop the segments.
class Tensor {
 public:
  Tensor() = default;  ///< undefined: defined() is false

  /// @name Making one. The device is the current DeviceScope's, the memory tag the current TagScope's.
  /// @{
  static Tensor empty(Shape shape, DType dtype = DType::f32);
  static Tensor zeros(Shape shape, DType dtype = DType::f32);
  static Tensor full(Shape shape, float value, DType dtype = DType::f32);
  static Tensor from(std::span<const float> values, Shape shape);
  static Tensor from(std::span<const int32_t> values, Shape shape);
  /// An image tensor of total_rows(segments) rows, uninitialised.
  static Tensor images(Segments segments, int64_t channels, DType dtype = DType::f32);
  /// Uninitialised, of the same shape, segments, dtype and device.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);
  /// @}

  bool defined() const { return impl_ != nullptr; }
  const Shape& shape() const;
  int64_t dim(int64_t i) const;  ///< negative i counts from the end
  int64_t rank() const { return static_cast<int64_t>(shape().size()); }
  int64_t numel() const;
  size_t bytes() const;
  DType dtype() const;
  Device device() const;
  /// Empty unless this is an image tensor.
  const Segments& segments() const;
  bool is_images() const { return !segments().empty(); }

  /// Null on the meta device.
  void* raw() const;
  /// Typed access on the CPU; throws when T is not the dtype or the tensor is elsewhere.
  template <class T>
  std::span<T> data() const;
  /// The value of a one-element f32 tensor (on CUDA: waits for it).
  float item() const;

  /// @name Views and copies
  /// @{
  Tensor reshape(Shape shape) const;                ///< one extent may be -1. Differentiable
  Tensor slice(int64_t first, int64_t last) const;  ///< rows [first, last) of the first dimension. Differentiable
  Tensor with_segments(Segments segments) const;    ///< a matrix seen as images. Differentiable
  Tensor detach() const;                            ///< the same memory, off the tape
  /// The beginning of this memory as something else that fits into it, off the tape: for buffers that are used again.
  Tensor viewed_as(Shape shape, DType dtype, Segments segments = {}) const;
  Tensor clone() const;  ///< own memory, off the tape
  /// Off the tape; to meta drops the data, from meta is an error. From CUDA: waits until it is done.
  Tensor to(Device device) const;
  Tensor to(DType dtype) const;  ///< off the tape; see cast() in ops.h for the differentiable one
  /// Copies the values of another tensor of the same numel and dtype into this memory, from whatever device that has
  /// memory (counts as in-place write).
  void copy_from(const Tensor& other) const;
  void fill(float value) const;
  /// @}

  /// @name Autograd
  /// @{
  bool requires_grad() const;
  /// Makes this a leaf whose gradient backward() accumulates.
  Tensor& requires_grad_(bool on = true);
  bool is_leaf() const;
  Tensor grad() const;  ///< undefined until a backward() has reached this leaf
  void set_grad(Tensor grad) const;
  /// Runs the tape backward from this one-element tensor, freeing it on the way. When it returns, what hooks put off to
  /// its end is done too: gradients are whole.
  void backward(BackwardOptions options = {}) const;
  /// Has `hook` called whenever backward() has finished this leaf's gradient: every use of it has contributed. For as
  /// long as the result is kept (and the leaf lives). For the order of hooks, and what they can do, see autograd.h.
  [[nodiscard]] std::shared_ptr<const autograd::Hook> on_gradient_ready(
      autograd::HookStage stage, std::function<void(autograd::GradientReady& ready)> hook) const;
  uint64_t version() const;
  void bump_version() const;  ///< to be called by whoever writes in place
  /// True when no other tensor shares this memory: it may be overwritten as a scratch result.
  bool owns_memory_alone() const;
  /// @}

  struct Impl;
  Impl* impl() const { return impl_.get(); }
  const std::shared_ptr<Impl>& shared() const { return impl_; }
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

struct Tensor::Impl {
  std::shared_ptr<Storage> storage;
  size_t offset_bytes = 0;
  Shape shape;
  DType dtype = DType::f32;
  Segments segments;
  bool requires_grad = false;
  Tensor grad;
  std::shared_ptr<autograd::Node> node;                    ///< what computed this; null for leaves
  std::shared_ptr<autograd::Remake> remake;                ///< how it can be made again, where it can
  std::vector<std::weak_ptr<const autograd::Hook>> hooks;  ///< gone ones are passed over
};

/// Tensors made on this thread while the scope lives are on this device (cpu otherwise).
using DeviceScope = FieldScope<&Context::device>;

/// Scratch memory for one call, from the device's allocator under Tag::workspace.
class Workspace {
 public:
  Workspace(Device device, size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return block_.data; }

 private:
  Allocator* allocator_;
  Allocator::Block block_;
};

}  // namespace saccade
