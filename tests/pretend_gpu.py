"""A GPU without one: tensors on another device than the CPU, in any process.

Tensors report the device `gpu:0`, PyTorch's spare backend, and hold their numbers on the CPU.
Mixing them with CPU tensors raises, as on a GPU, and waits of the host are counted. Streams, the
allocator and the rounding of a GPU are not imitated.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # it reads the functions of torch.cuda, which are replaced here
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *_: Any) -> None:
        """Leave the generator, which is the CPU's, as it is."""


_setup_privateuseone_for_python_backend("gpu", backend_module=_Backend())
GPU = torch.device("gpu", 0)

COPIES = ("_to_copy", "copy_")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")  # take indices of the CPU
# Operations whose result or shape the host waits for.
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "bincount"}
READS |= {"unique_dim", "unique_consecutive", "repeat_interleave"}

HOST: Counter[str] = Counter()
"""Counts of waits for the device: `read` of a value, `download` and `upload` of a tensor."""


class GPUTensor(torch.Tensor):
    """A tensor of the GPU; `on_cpu` contains its numbers."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor) -> GPUTensor:
        """Wrap a tensor of the CPU."""
        size, dtype = on_cpu.size(), on_cpu.dtype
        layout = {"strides": on_cpu.stride(), "storage_offset": on_cpu.storage_offset()}
        self = cls._make_wrapper_subclass(cls, size, dtype=dtype, device=GPU, **layout)
        self.on_cpu = on_cpu
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the numbers: a checkpoint is read on the CPU."""
        return self.on_cpu.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def is_gpu(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == "gpu"


def unwrap(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [unwrap(each) for each in value]
    return value.on_cpu if isinstance(value, GPUTensor) else value


def wrap(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(wrap(each) for each in value)
    is_ours = isinstance(value, GPUTensor) or not isinstance(value, torch.Tensor)
    return value if is_ours else GPUTensor(value)


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute one operation on the CPU; wrap its result if it is on the GPU.

    Raises:
        RuntimeError: tensors of both devices, or a generator of the other one.
    """
    given = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor | list | tuple)]
    tensors = [t for v in given for t in (v if isinstance(v, list | tuple) else (v,))]
    ours = [t for t in tensors if isinstance(t, GPUTensor)]
    device = kwargs.get("device")
    if not ours and not is_gpu(device):
        return func(*args, **kwargs)
    name, on_gpu = func.overloadpacket.__name__, True
    if name in COPIES:
        on_gpu = _count_copy(name, args, kwargs)
    elif device is not None:
        on_gpu = is_gpu(device)
    elif name not in INDEXING and len(ours) < len(tensors):
        rest = [t for t in tensors if isinstance(t, torch.Tensor) and not isinstance(t, GPUTensor)]
        if mixed := [tuple(t.shape) for t in rest if t.dim()]:  # a number may be of the CPU
            raise RuntimeError(f"expected all tensors on gpu:0, {func} has {mixed} on the CPU")
    if on_gpu and kwargs.get("generator") is not None:
        raise RuntimeError(f"expected a generator of gpu:0 for {func}, got one of the CPU")
    by_mask = name in INDEXING and any(t.dtype == torch.bool for t in ours[1:])
    if ours and (name in READS or by_mask):
        HOST["read"] += 1
    there = {k: "cpu" if is_gpu(v) else unwrap(v) for k, v in kwargs.items()}
    there.pop("pin_memory", None)
    out = func(*map(unwrap, args), **there)
    if not on_gpu or not isinstance(out, list | tuple | torch.Tensor):
        return out
    out = wrap(out)
    return return_and_correct_aliasing(func, args, kwargs, out) if func._schema.is_mutable else out


def _count_copy(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Count a copy between devices that the host waits for; return whether it ends on the GPU."""
    if name == "_to_copy":
        source, asynchronous = args[0], kwargs.get("non_blocking", False)
        on_gpu = is_gpu(kwargs.get("device") or source.device)
    else:
        target, source, *rest = args
        asynchronous, on_gpu = bool(rest and rest[0]), isinstance(target, GPUTensor)
    if isinstance(source, GPUTensor) != on_gpu:
        waits = not (asynchronous and getattr(source, "is_pinned_here", False))
        HOST["upload" if on_gpu else "download"] += waits
    return on_gpu


# Mixed precision as in CUDA's autocast: the operations of PyTorch's lists that occur here

LOWER = "linear matmul mm bmm addmm baddbmm conv2d scaled_dot_product_attention"
FP32 = "layer_norm softmax.int log_softmax.int exp log pow.Tensor_Scalar norm.ScalarOpt_dim sum "
FP32 += "sum.dim_IntList cosine_similarity nll_loss kl_div mse_loss rsqrt softplus"
AUTOCAST = DispatchKeySet(DispatchKey.AutocastPrivateUse1)


def _autocast(name: str, dtype: torch.dtype | None) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        target = dtype or torch.get_autocast_dtype("gpu")

        def cast(value: Any) -> Any:
            is_ours = isinstance(value, GPUTensor) and value.is_floating_point()
            return value.to(target) if is_ours and value.dtype != torch.float64 else value

        with _ExcludeDispatchKeyGuard(AUTOCAST):
            return op(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})

    return kernel


_others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_others.fallback(torch.library.fallthrough_kernel)
_kernels = torch.library.Library("aten", "IMPL")
for _name in LOWER.split():
    _kernels.impl(_name, _autocast(_name, None), "AutocastPrivateUse1")
for _name in FP32.split():
    _kernels.impl(_name, _autocast(_name, torch.float32), "AutocastPrivateUse1")


# Operations that indexing with lists calls below the modes.


def _copy_from(source: torch.Tensor, target: torch.Tensor, asynchronous: bool = False) -> Any:
    computed(torch.ops.aten.copy_.default, (target, source, asynchronous), {})
    return target


def _empty_strided(size: Any, stride: Any, *, dtype: torch.dtype, **_: Any) -> GPUTensor:
    return GPUTensor(torch.empty_strided(size, stride, dtype=dtype))


_kernels.impl("_copy_from", _copy_from, "PrivateUse1")
_kernels.impl("empty_strided", _empty_strided, "PrivateUse1")


# The process


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Read `cuda` as the pretended device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.tolist and isinstance(args[0], GPUTensor):
            HOST["read"] += 1
            return args[0].on_cpu.tolist()
        if kwargs and "device" in kwargs and func is not torch.device:
            kwargs = {**kwargs, "device": _named(kwargs["device"])}
        if func is torch.Tensor.to:
            args = tuple(map(_named, args))
        return func(*args, **kwargs or {})


def _named(value: Any) -> Any:
    is_name = isinstance(value, str) and value.partition(":")[0] == "cuda"
    is_cuda = is_name or (isinstance(value, torch.device) and value.type == "cuda")
    return GPU if is_cuda else value


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("gpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _pinned(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    tensor.is_pinned_here = True
    return tensor


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Counter[str]]:
    """Let `cuda` be the pretended device; yield the counter of the host's waits, at zero."""
    states = {"get_rng_state": torch.get_rng_state, "get_rng_state_all": list}
    silent = ("_lazy_init", "set_rng_state", "set_rng_state_all", "manual_seed_all", "synchronize")
    silent += ("reset_peak_memory_stats", "empty_cache")
    facts = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "max_memory_allocated": 0,
    }
    with contextlib.ExitStack() as stack:
        cuda = {name: lambda *_, value=value, **__: value for name, value in facts.items()}
        cuda |= {name: lambda *_, f=f: f() for name, f in states.items()}
        cuda |= dict.fromkeys(silent, lambda *_, **__: None)
        cuda["get_device_name"] = lambda *_: "pretended"
        stack.enter_context(mock.patch.multiple(torch.cuda, **cuda))
        stack.enter_context(mock.patch.object(torch, "autocast", _Autocast))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pinned))
        stack.enter_context(_Functions())
        stack.enter_context(_Dispatch())
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        HOST.clear()
        yield HOST
