#include <fmt/format.h>
#include <saccade/core/io/pickle_names.h>
#include <saccade/core/io/quoted_text.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <iterator>

namespace saccade::io {
namespace {

struct Rule {
  std::string_view name;
  Make make;
};

/// All that may be called. Python 2 calls builtins __builtin__, NumPy 1 calls _core core.
constexpr Rule kRules[] = {
    {"collections.OrderedDict", Make::dictionary},
    {"collections.Counter", Make::dictionary},
    {"collections.defaultdict", Make::default_dictionary},
    {"collections.deque", Make::list},
    {"builtins.dict", Make::dictionary},
    {"builtins.list", Make::list},
    {"builtins.set", Make::list},
    {"builtins.frozenset", Make::list},
    {"builtins.tuple", Make::tuple},
    {"builtins.bytes", Make::latin1_bytes},
    {"builtins.bytearray", Make::latin1_bytes},
    {"builtins.complex", Make::opaque},
    {"builtins.slice", Make::opaque},
    {"builtins.range", Make::opaque},
    {"builtins.xrange", Make::opaque},
    {"_codecs.encode", Make::latin1_bytes},
    {"argparse.Namespace", Make::record},
    {"types.SimpleNamespace", Make::record},
    {"easydict.EasyDict", Make::dictionary},
    {"yacs.config.CfgNode", Make::dictionary},
    {"fvcore.common.config.CfgNode", Make::dictionary},
    {"detectron2.config.config.CfgNode", Make::dictionary},
    {"addict.addict.Dict", Make::dictionary},
    {"pytorch_lightning.utilities.parsing.AttributeDict", Make::dictionary},
    {"lightning.pytorch.utilities.parsing.AttributeDict", Make::dictionary},
    {"lightning_fabric.utilities.data.AttributeDict", Make::dictionary},
    {"lightning.fabric.utilities.data.AttributeDict", Make::dictionary},
    {"mmengine.config.config.ConfigDict", Make::dictionary},
    {"mmcv.utils.config.ConfigDict", Make::dictionary},
    {"vissl.config.attr_dict.AttrDict", Make::dictionary},
    {"vissl.utils.hydra_config.AttrDict", Make::dictionary},
    {"ml_collections.config_dict.config_dict.ConfigDict", Make::opaque},
    {"mmengine.logging.history_buffer.HistoryBuffer", Make::opaque},
    {"pathlib.PosixPath", Make::path},
    {"pathlib.WindowsPath", Make::path},
    {"pathlib.PurePosixPath", Make::path},
    {"pathlib.PureWindowsPath", Make::path},
    {"pathlib._local.PosixPath", Make::path},
    {"pathlib._local.WindowsPath", Make::path},
    {"datetime.datetime", Make::opaque},
    {"datetime.date", Make::opaque},
    {"datetime.time", Make::opaque},
    {"datetime.timedelta", Make::opaque},
    {"omegaconf.dictconfig.DictConfig", Make::opaque},
    {"omegaconf.listconfig.ListConfig", Make::opaque},
    {"omegaconf.base.ContainerMetadata", Make::opaque},
    {"omegaconf.base.Metadata", Make::opaque},
    {"omegaconf.nodes.AnyNode", Make::opaque},
    {"omegaconf.nodes.StringNode", Make::opaque},
    {"omegaconf.nodes.IntegerNode", Make::opaque},
    {"omegaconf.nodes.FloatNode", Make::opaque},
    {"omegaconf.nodes.BooleanNode", Make::opaque},
    {"numpy.dtype", Make::numpy_type},
    {"numpy.core.multiarray.scalar", Make::numpy_scalar},
    {"numpy._core.multiarray.scalar", Make::numpy_scalar},
    {"numpy.core.multiarray._reconstruct", Make::numpy_array},
    {"numpy._core.multiarray._reconstruct", Make::numpy_array},
    {"numpy.core.numeric._frombuffer", Make::numpy_array_of_buffer},
    {"numpy._core.numeric._frombuffer", Make::numpy_array_of_buffer},
    {"torch.Size", Make::tuple},
    {"torch.device", Make::device},
    {"torch.torch_version.TorchVersion", Make::text},
    {"torch.serialization._get_layout", Make::text},
    {"torch._utils._rebuild_tensor", Make::tensor},
    {"torch._utils._rebuild_tensor_v2", Make::tensor},
    {"torch._utils._rebuild_tensor_v3", Make::tensor_of_any_type},
    {"torch._utils._rebuild_parameter", Make::parameter},
    {"torch._utils._rebuild_parameter_with_state", Make::parameter},
    {"torch._tensor._rebuild_from_type_v2", Make::tensor_subclass},
};

struct Refusal {
  std::string_view name, reason;
};

/// Tensors that PyTorch knows and weights here cannot be.
constexpr Refusal kRefusals[] = {
    {"torch._utils._rebuild_qtensor", "a quantized tensor: save tensor.dequantize()"},
    {"torch._utils._rebuild_sparse_tensor", "a sparse tensor: save tensor.to_dense()"},
    {"torch._utils._rebuild_sparse_csr_tensor", "a sparse tensor: save tensor.to_dense()"},
    {"torch._utils._rebuild_nested_tensor", "a nested tensor: save its parts one by one"},
    {"torch._utils._rebuild_meta_tensor_no_storage", "a tensor of the meta device, which has no values"},
    {"torch._utils._rebuild_device_tensor_from_numpy", "a tensor of a device that is kept apart: save tensor.cpu()"},
    {"torch._utils._rebuild_device_tensor_from_cpu_tensor",
     "a tensor of a device that is kept apart: save "
     "tensor.cpu()"},
    {"torch._utils._rebuild_wrapper_subclass",
     "a tensor spread over processes: gather it (full_tensor()) and save "
     "that"},
    {"torch.jit._pickle.build_tensor_from_id", "a tensor of TorchScript: save torch.jit.load(FILE).state_dict()"},
};

}  // namespace

std::string name_today(std::string_view name) {
  constexpr std::string_view old = "__builtin__.";
  return name.starts_with(old) ? "builtins." + std::string(name.substr(old.size())) : std::string(name);
}

std::optional<Make> made_for(std::string_view name) {
  const std::string sought = name_today(name);
  const auto* at = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& r) { return r.name == sought; });
  return at == std::end(kRules) ? std::nullopt : std::optional(at->make);
}

void refuse_call(std::string_view name, bool instance) {
  for (const Refusal& refusal : kRefusals)
    if (refusal.name == name) throw Error(fmt::format("it holds {}", refusal.reason));
  if (name.starts_with("torch.distributed.checkpoint."))
    throw Error(
        fmt::format("it is part of a distributed checkpoint ({}): python -m torch.distributed.checkpoint.format_utils "
                    "dcp_to_torch FOLDER weights.pth",
                    in_quotes(name)));
  if (instance)
    throw Error(
        fmt::format("it wants {} built, which is no part of weights and is not done: where you trust the file, load it "
                    "in Python and save the state dict alone, torch.save(model.state_dict(), \"weights.pth\")",
                    in_quotes(name)));
  throw Error(fmt::format("it wants {} called, which is no part of weights and is not done", in_quotes(name)));
}

}  // namespace saccade::io
