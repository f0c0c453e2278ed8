"""The setting of a benchmark: device, precision and torch.compile; its clock and its memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, get_args

import torch
from torch.profiler import ProfilerActivity, profile

from causalclip.clip.backbone import Precision

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Setting:
    """Device, precision and use of torch.compile; by default fp32 on the CPU, not compiled."""

    device: str = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    """Whether to compile our code; the published way is never compiled."""

    @classmethod
    def of(cls, args: argparse.Namespace) -> Setting:
        """Return the setting that the options of `add_options` ask for."""
        return cls(args.device, args.precision, args.compile)

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}" + (", torch.compile" if self.compile else "")

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the matrix products; amp is fp16 on a GPU and bf16 on a CPU."""
        types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        return types.get(self.precision, types["fp16" if self.device == "cuda" else "bf16"])

    def autocast(self) -> torch.autocast:
        """Return a context of mixed precision, which has an effect for amp alone."""
        return torch.autocast(self.device, self.dtype, enabled=self.precision == "amp")

    def compiled(self, function: Callable[Given, Answer]) -> Callable[Given, Answer]:
        """Return the function, compiled if `compile` is set; reset the compiler first."""
        if not self.compile:
            return function
        torch.compiler.reset()  # graphs of earlier methods count towards its limit
        return torch.compile(function)

    def clock(self) -> float:
        """Return CPU time, which other processes hardly affect; on a GPU, wall time."""
        return time.process_time() if self.device == "cpu" else time.perf_counter()

    def peak_bytes(self, run: Callable[[], object]) -> int:
        """Return the peak memory in bytes of the tensors that `run` creates."""
        return _peak_on_cpu(run) if self.device == "cpu" else _peak_on_gpu(run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the three parts of a setting."""
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=get_args(Precision))
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")


def _peak_on_cpu(run: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    now = peak = 0
    events: Any = profiler.profiler  # torch's annotations omit kineto_results
    for event in events.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def _peak_on_gpu(run: Callable[[], object]) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before
