// A device for PyTorch whose memory is ordinary RAM. It stands in for a GPU in tests of memory management: tensors are
// moved to it and from it, its bytes are counted, and an operation that mixes it with the CPU is refused as CUDA does.
// Arithmetic is done by PyTorch's CPU code.
#include <ATen/EmptyTensor.h>
#include <ATen/ATen.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>

namespace {

using c10::DeviceType;
using OptionalType = std::optional<at::ScalarType>;
using OptionalLayout = std::optional<at::Layout>;
using OptionalDevice = std::optional<c10::Device>;

const c10::Device kRam(DeviceType::PrivateUse1, 0);
const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);
std::atomic<int64_t> bytes_held{0};

// Memory

struct Block {
  void* data;
  size_t size;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  bytes_held -= static_cast<int64_t>(block->size);
  std::free(block->data);
  delete block;
}

struct RamAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    constexpr size_t kAlign = 64;
    void* data = std::aligned_alloc(kAlign, (size / kAlign + 1) * kAlign);
    TORCH_CHECK(data, "no memory for ", size, " bytes");
    bytes_held += static_cast<int64_t>(size);
    return {data, new Block{data, size}, &release, kRam};
  }
  void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }
};

RamAllocator allocator;
REGISTER_ALLOCATOR(DeviceType::PrivateUse1, &allocator);

// What PyTorch wants to know of a device: there is one, and it has no streams.

struct RamGuard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::PrivateUse1; }
  c10::Device getDevice() const override { return kRam; }
  c10::Device exchangeDevice(c10::Device) const override { return kRam; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kRam); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, RamGuard);

struct RamHooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isAvailable() const override { return true; }
  bool isBuilt() const override { return true; }
};

// Tensors

at::Tensor empty(at::IntArrayRef size, OptionalType type, OptionalLayout, OptionalDevice, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, OptionalType type, OptionalLayout,
                         OptionalDevice, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, c10::dtype_or_default(type));
}

// The same memory under the CPU's name, for as long as the tensor lives.
at::Tensor on_cpu(const at::Tensor& tensor) {
  if (!tensor.is_privateuseone()) return tensor;
  return at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(),
                       at::TensorOptions().dtype(tensor.dtype()));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  on_cpu(target).copy_(on_cpu(source));
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (target.sizes() != source.sizes()) target.resize_(source.sizes());
  return copy_from(source, target, false);
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), C10_AS_INTARRAYREF_SLOW(size), std::nullopt);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, std::move(storage), offset, size, stride);
}

// Operations

void check_device(const at::Tensor& tensor, const std::string& operation) {
  const bool good = !tensor.defined() || tensor.dim() == 0 || tensor.is_privateuseone();
  TORCH_CHECK(good, "Expected all tensors to be on the same device, but found one on ", tensor.device(), " among those "
              "on ", kRam, " in ", operation);
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  // Indices may come from the CPU, as with CUDA.
  if (name != "aten::index" && name != "aten::index_put_" && name != "aten::_index_put_impl_") {
    for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
      if (value.isTensor()) check_device(value.toTensor(), name);
      if (value.isTensorList())
        for (const at::Tensor& tensor : value.toTensorVector()) check_device(tensor, name);
    }
  }
  at::native::cpu_fallback(op, stack);
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                       bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  std::optional<at::Tensor> cpu_bias;
  check_device(input, "convolution");
  check_device(weight, "convolution");
  if (bias.has_value() && bias->defined()) {
    check_device(*bias, "convolution");
    cpu_bias = on_cpu(*bias);
  }
  auto result = at::convolution(on_cpu(input), on_cpu(weight), cpu_bias, C10_AS_INTARRAYREF_SLOW(stride),
                                C10_AS_INTARRAYREF_SLOW(padding), C10_AS_INTARRAYREF_SLOW(dilation), transposed,
                                C10_AS_INTARRAYREF_SLOW(output_padding), groups.expect_int());
  return result.to(kRam);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("convolution_overrideable", &convolution);
}

TORCH_LIBRARY(ram_device, m) {
  m.def("start", []() { at::RegisterPrivateUse1HooksInterface(new RamHooks); });  // kept for the whole process
  m.def("bytes_held", []() -> int64_t { return bytes_held; });
}
