"""Modules without their first values, which would be drawn to be overwritten at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = {
    *(Tensor.normal_, Tensor.uniform_),
    # Those of torch.nn.init that offer themselves; the others come down to the two above.
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.xavier_uniform_),
}


class undrawn(TorchFunctionMode):  # noqa: N801 (a context manager)
    """Inside, parameters stay as they are allocated: for a model that takes all from a file.

    Half of the time in which a small CLIP is loaded, and seconds of a large one's.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave a tensor as it is where `func` would draw its values."""
        if func not in _DRAWS:
            return func(*args, **(kwargs or {}))
        return args[0] if args else (kwargs or {})["tensor"]
