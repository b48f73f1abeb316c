#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/tensor.h>
#include <saccade/kernels/backend.h>

#include <cstring>
#include <numeric>
#include <utility>

namespace saccade {
namespace {

int64_t product(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(n, extent, &n))
      fail(fmt::format("tensor: shape {} has a negative extent or too many elements", to_string(shape)));
  return n;
}

const Tensor::Impl& deref(const Tensor& tensor) {
  if (!tensor.defined()) fail("tensor: an undefined tensor was used");
  return *tensor.impl();
}

Tensor make(Shape shape, DType dtype, Device device, Segments segments = {}) {
  auto impl = std::make_shared<Tensor::Impl>();
  const auto bytes = static_cast<size_t>(product(shape)) * size_of(dtype);
  impl->storage = std::make_shared<Storage>(bytes, device, TagScope::current(), shape, dtype);
  impl->shape = std::move(shape);
  impl->dtype = dtype;
  impl->segments = std::move(segments);
  return Tensor(std::move(impl));
}

/// Another tensor on the same memory, off the tape.
Tensor alias(const Tensor& tensor) {
  const Tensor::Impl& from = deref(tensor);
  auto impl = std::make_shared<Tensor::Impl>();
  impl->storage = from.storage;
  impl->offset_bytes = from.offset_bytes;
  impl->shape = from.shape;
  impl->dtype = from.dtype;
  impl->segments = from.segments;
  return Tensor(std::move(impl));
}

template <class T>
constexpr DType dtype_for() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, Half>) return DType::f16;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::bf16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::i64;
  return DType::u8;
}

template <class T>
Tensor from_values(std::span<const T> values, Shape shape) {
  if (product(shape) != static_cast<int64_t>(values.size()))
    fail(fmt::format("tensor: {} values do not fill the shape {}", values.size(), to_string(shape)));
  Tensor tensor = make(std::move(shape), dtype_for<T>(), DeviceScope::current());
  if (!values.empty()) kernels::backend(tensor.device()).from_host(values.size_bytes(), values.data(), tensor.raw());
  return tensor;
}

}  // namespace

std::string to_string(const Shape& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

Storage::Storage(size_t bytes, Device device, Tag tag, std::span<const int64_t> shape, DType dtype)
    : block(allocator(device).allocate(bytes, tag, shape, dtype)), device(device) {}
Storage::~Storage() { allocator(device).release(block); }

Tensor Tensor::empty(Shape shape, DType dtype) { return make(std::move(shape), dtype, DeviceScope::current()); }

Tensor Tensor::zeros(Shape shape, DType dtype) { return full(std::move(shape), 0.f, dtype); }

Tensor Tensor::full(Shape shape, float value, DType dtype) {
  Tensor tensor = empty(std::move(shape), dtype);
  compute(tensor.device(), kernels::Fill{dtype, tensor.numel(), value, tensor.raw()});
  return tensor;
}

Tensor Tensor::from(std::span<const float> values, Shape shape) { return from_values(values, std::move(shape)); }
Tensor Tensor::from(std::span<const int32_t> values, Shape shape) { return from_values(values, std::move(shape)); }

Tensor Tensor::images(Segments segments, int64_t channels, DType dtype) {
  const int64_t rows = total_rows(segments);
  return make({rows, channels}, dtype, DeviceScope::current(), std::move(segments));
}

Tensor Tensor::empty_like(const Tensor& other) {
  return make(other.shape(), other.dtype(), other.device(), other.segments());
}

Tensor Tensor::zeros_like(const Tensor& other) {
  Tensor tensor = empty_like(other);
  compute(tensor.device(), kernels::Fill{tensor.dtype(), tensor.numel(), 0.f, tensor.raw()});
  return tensor;
}

const Shape& Tensor::shape() const { return deref(*this).shape; }

int64_t Tensor::dim(int64_t i) const {
  const Shape& s = shape();
  const int64_t at = i < 0 ? i + static_cast<int64_t>(s.size()) : i;
  if (at < 0 || at >= static_cast<int64_t>(s.size()))
    fail(fmt::format("tensor: dimension {} asked of shape {}", i, to_string(s)));
  return s[static_cast<size_t>(at)];
}

int64_t Tensor::numel() const {
  const Shape& s = shape();
  return std::accumulate(s.begin(), s.end(), int64_t{1}, std::multiplies<>());
}

size_t Tensor::bytes() const { return static_cast<size_t>(numel()) * size_of(dtype()); }
DType Tensor::dtype() const { return deref(*this).dtype; }
Device Tensor::device() const { return deref(*this).storage->device; }
const Segments& Tensor::segments() const { return deref(*this).segments; }

void* Tensor::raw() const {
  const Impl& t = deref(*this);
  return t.storage->block.data == nullptr ? nullptr : static_cast<char*>(t.storage->block.data) + t.offset_bytes;
}

template <class T>
std::span<T> Tensor::data() const {
  if (dtype() != dtype_for<T>())
    fail(fmt::format("tensor: data of type {} asked of a {} tensor", name_of(dtype_for<T>()), name_of(dtype())));
  if (device() == Device::meta) fail("tensor: the data of a meta tensor was asked for; it has none");
  if (device() != Device::cpu) fail("tensor: the data of a cuda tensor was asked for; bring it to the cpu first");
  return {static_cast<T*>(raw()), static_cast<size_t>(numel())};
}
template std::span<float> Tensor::data() const;
template std::span<Half> Tensor::data() const;
template std::span<BFloat16> Tensor::data() const;
template std::span<int32_t> Tensor::data() const;
template std::span<int64_t> Tensor::data() const;
template std::span<uint8_t> Tensor::data() const;

float Tensor::item() const {
  if (numel() != 1) fail(fmt::format("tensor: item() of shape {}, expected one element", to_string(shape())));
  return device() == Device::cuda ? to(Device::cpu).data<float>()[0] : data<float>()[0];
}

Tensor Tensor::reshape(Shape shape) const {
  int64_t known = 1, hole = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1 && hole < 0)
      hole = static_cast<int64_t>(i);
    else
      known *= shape[i];
  }
  if (hole >= 0 && known > 0) shape[static_cast<size_t>(hole)] = numel() / known;
  if (product(shape) != numel())
    fail(fmt::format("reshape: {} has {} elements, the new shape {} does not", to_string(this->shape()), numel(),
                     to_string(shape)));
  Tensor view = alias(*this);
  view.impl_->shape = std::move(shape);
  view.impl_->segments.clear();
  if (autograd::recording({*this}))
    autograd::record(view, "reshape", {*this},
                     [before = this->shape(), segments = segments()](Tensor dy, autograd::Gradients& to) {
                       Tensor dx = dy.reshape(before);
                       to.give(0, segments.empty() ? dx : dx.with_segments(segments));
                     });
  return view;
}

Tensor Tensor::slice(int64_t first, int64_t last) const {
  if (rank() == 0 || first < 0 || first > last || last > dim(0))
    fail(fmt::format("slice: rows [{}, {}) of shape {}", first, last, to_string(shape())));
  Tensor view = alias(*this);
  const auto row_bytes = dim(0) == 0 ? 0 : bytes() / static_cast<size_t>(dim(0));
  view.impl_->shape[0] = last - first;
  view.impl_->offset_bytes += static_cast<size_t>(first) * row_bytes;
  view.impl_->segments.clear();
  if (autograd::recording({*this}))
    autograd::record(
        view, "slice", {*this},
        [shape = shape(), segments = segments(), dtype = dtype(), first, last](Tensor dy, autograd::Gradients& to) {
          const DeviceScope device(dy.device());
          Tensor dx = zeros(shape, dtype);
          dx.slice(first, last).copy_from(dy);
          to.give(0, segments.empty() ? dx : dx.with_segments(segments));
        });
  return view;
}

Tensor Tensor::with_segments(Segments segments) const {
  if (rank() != 2 || total_rows(segments) != dim(0))
    fail(fmt::format("with_segments: segments of {} rows in all on a tensor of shape {}", total_rows(segments),
                     to_string(shape())));
  Tensor view = alias(*this);
  view.impl_->segments = std::move(segments);
  if (autograd::recording({*this}))
    autograd::record(view, "with_segments", {*this}, [before = this->segments()](Tensor dy, autograd::Gradients& to) {
      Tensor dx = alias(dy);
      dx.impl_->segments = before;
      to.give(0, dx);
    });
  return view;
}

Tensor Tensor::detach() const { return alias(*this); }

Tensor Tensor::viewed_as(Shape shape, DType dtype, Segments segments) const {
  if (static_cast<size_t>(product(shape)) * size_of(dtype) > bytes())
    fail(fmt::format("viewed_as: {} {} do not fit into {} bytes", to_string(shape), name_of(dtype), bytes()));
  Tensor view = alias(*this);
  view.impl_->shape = std::move(shape);
  view.impl_->dtype = dtype;
  view.impl_->segments = std::move(segments);
  return view;
}

Tensor Tensor::clone() const {
  Tensor copy = empty_like(*this);
  compute(device(), kernels::Copy{static_cast<int64_t>(bytes()), raw(), copy.raw()});
  return copy;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return detach();
  if (this->device() == Device::meta) fail("tensor: a meta tensor has no data to bring to another device");
  Tensor result = make(shape(), dtype(), device, segments());
  if (device == Device::cpu)
    kernels::backend(this->device()).to_host(bytes(), raw(), result.raw());
  else
    kernels::backend(device).from_host(bytes(), raw(), result.raw());
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == this->dtype()) return detach();
  Tensor result = make(shape(), dtype, device(), segments());
  compute(device(), kernels::Cast{this->dtype(), dtype, numel(), raw(), result.raw()});
  return result;
}

void Tensor::copy_from(const Tensor& other) const {
  if (other.numel() != numel() || other.dtype() != dtype() ||
      (other.device() != device() && (other.device() == Device::meta || device() == Device::meta)))
    fail(fmt::format("copy_from: {} {} values on {} into {} {} on {}", other.numel(), name_of(other.dtype()),
                     name_of(other.device()), numel(), name_of(dtype()), name_of(device())));
  if (other.device() == device())
    compute(device(), kernels::Copy{static_cast<int64_t>(bytes()), other.raw(), raw()});
  else if (device() == Device::cpu)
    kernels::backend(other.device()).to_host(bytes(), other.raw(), raw());
  else
    kernels::backend(device()).from_host(bytes(), other.raw(), raw());
  bump_version();
}

void Tensor::fill(float value) const {
  compute(device(), kernels::Fill{dtype(), numel(), value, raw()});
  bump_version();
}

uint64_t Tensor::version() const { return deref(*this).storage->version; }
void Tensor::bump_version() const { ++deref(*this).storage->version; }

bool Tensor::owns_memory_alone() const {
  return defined() && impl_.use_count() == 1 && impl_->storage.use_count() == 1;
}

Workspace::Workspace(Device device, size_t bytes) : allocator_(&allocator(device)) {
  if (bytes > 0) block_ = allocator_->allocate(bytes, Tag::workspace);
}
Workspace::~Workspace() { allocator_->release(block_); }

}  // namespace saccade
