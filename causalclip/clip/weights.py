"""Weights in files: TorchScript archives, state dicts, safetensors and the bundled format.

Code in a file is never run, except in a TorchScript archive that OpenAI released or that you
trust. `run_limited` limits the time and memory of reading a file.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import RELEASED, CLIPModel, is_vit, uses_gelu
from causalclip.files.atomic import replacing
from causalclip.files.caches import parse_json
from causalclip.files.digests import file_digest, is_vouched_for, require_vouched_for
from causalclip.files.torch_files import code_in

# Errors that the formats, and torch's readers of them, raise for damaged files.
_FORMAT_ERRORS = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError)
_READER_ERRORS = (RuntimeError, LookupError, TypeError, AttributeError, OverflowError)
_DAMAGE = (*_FORMAT_ERRORS, *_READER_ERRORS, AssertionError, struct.error)
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
LARGEST = 1 << 20  # most tokens of a vocabulary
_TORCH_OUT_OF_MEMORY = ("allocate memory", "bad allocation", "bad_alloc")
StateDict = dict[str, Tensor]
_RESULT, _ERROR, _OUT_OF_MEMORY = b"r", b"e", b"m"


def weights_digest(model: CLIPModel) -> str:
    """Return the sha256 of all weights (names, types, shapes, values) and the architecture."""
    digest = hashlib.sha256(backbone_of(model).architecture.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def is_released(path: Path) -> bool:
    """Return whether OpenAI released a file, by its digest."""
    return file_digest(path) in {url.split("/")[-2] for url in RELEASED.values()}


def save_tiny(
    model: CLIPModel,
    token_rows: Sequence[int] | Tensor,
    path: str | os.PathLike,
    *,
    fill_seed: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a ViT CLIP made by `build_clip(seed=fill_seed)`, leaving out untrained token rows.

    Only the rows `token_rows` (N,) of the token embedding (vocabulary, D) are stored; `load_clip`
    draws the other rows again, bit for bit.

    Raises:
        ValueError: another kind of model, or a changed row outside `token_rows`.
    """
    heads, width = model.transformer.resblocks[0].attn.num_heads, model.transformer.width
    if not is_vit(model) or uses_gelu(model) or heads != width // 64:
        raise ValueError("save_tiny stores only ViT models with QuickGELU and 64-wide heads")
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    table = state.pop("token_embedding.weight")
    rows = torch.as_tensor(token_rows, dtype=torch.long).unique()
    drawn = random_tokens(len(table), table.shape[1], fill_seed)
    drawn[rows] = table[rows]
    if changed := (drawn != table).any(dim=1).nonzero().flatten().tolist():
        raise ValueError(
            f"token rows {changed[:5]} are not in token_rows, but differ from those drawn with "
            f"fill_seed {fill_seed}"
        )
    state |= {"token_embedding.rows": rows, "token_embedding.values": table[rows]}
    header = {"architecture": json.dumps({"vocab_size": len(table)}), "fill_seed": str(fill_seed)}
    with replacing(path) as part:
        save_file(state, part, metadata={**(metadata or {}), **header})


def random_tokens(rows: int, width: int, seed: int) -> Tensor:
    """Return a token embedding (rows, width) as CLIP initialises it, the same for the same seed."""
    return _drawn_tokens(rows, width, seed).clone()


@lru_cache(maxsize=1)  # consecutive runs and tests load the same bundled CLIP
def _drawn_tokens(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(rows, width).normal_(std=0.02, generator=generator)


def read_weights(path: Path, *, trust_torchscript: bool = False) -> tuple[StateDict, str]:
    """Return the state dict of a file, and the activation that it records or "".

    Raises:
        ValueError: a file that holds no weights, is damaged, would run code, or holds a NaN.
    """
    has_digest = is_vouched_for(path)
    if other := _no_weights(path):
        raise ValueError(f"{path} is {other}")
    try:
        if path.suffix == ".safetensors":
            state, activation = _read_safetensors(path)
        elif _is_torchscript(path):
            if not (trust_torchscript or is_released(path)):
                raise ValueError(
                    f"{path} is TorchScript, a program that runs when it is loaded, and none that "
                    "OpenAI released. Ask its maker for a state dict or safetensors; or, if you "
                    "trust who made it, give --trust-torchscript (train.py, causalclip predict)"
                )
            state, activation = _read_torchscript(path), ""
        else:
            state, activation = _read_pickle(path), ""
    except _DAMAGE as error:
        reason = str(error) or "it is empty"
        if "Weights only load failed" in reason:  # torch suggests running the code in the file
            reason = code_in(error) or "it is a pickle of something else than tensors"
        raise ValueError(f"{path} cannot be read as weights: {reason}") from error
    if not (has_digest or path.suffix == ".safetensors" or zipfile.is_zipfile(path)):
        require_vouched_for(path)
    _check_values(state, path)
    consume_prefix_in_state_dict_if_present(state, "module.")  # of DataParallel
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        raise ValueError(
            f"{path} is in the layout of Hugging Face's transformers, which is not read: take the "
            "same model by its name (ViT-B/16), or as open_clip's (open_clip:MODEL/TAG)"
        )
    return state, activation


def _no_weights(path: Path) -> str:
    """Describe a file that is often mistaken for weights, and what to do; "" for other files."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to the weights: fetch them with git lfs pull"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page and no weights: its download asks for something, open it in a browser"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except _DAMAGE:  # damaged: the reader of the weights reports it
            return ""
        if not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
            inside = ", ".join(names[:3]) or "nothing"
            return f"a zip archive and no torch file: unpack it and name the file in it ({inside})"
    return ""


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name} must be a tensor, got a {type(value).__name__}")
        if value.is_complex():
            raise ValueError(f"{path}: {name} must be real numbers, got {value.dtype}")
        # aminmax returns NaN if any value is NaN, and needs no copy of all values.
        extremes = value.aminmax() if value.is_floating_point() and value.numel() else ()
        if not all(bool(extreme.isfinite()) for extreme in extremes):
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity")


def _read_safetensors(path: Path) -> tuple[StateDict, str]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    if "token_embedding.rows" not in state:
        return state, header.get("activation", "")
    try:
        size = parse_json(header["architecture"])["vocab_size"]
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= LARGEST:
            raise ValueError(f"vocab_size must be an int in [1, {LARGEST}], got {size!r:.80}")
        values = state.pop("token_embedding.values")
        table = random_tokens(size, values.shape[1], int(header["fill_seed"]))
        table[state.pop("token_embedding.rows")] = values
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its header or token rows: {error}") from error
    state["token_embedding.weight"] = table
    return state, "quick_gelu"


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> StateDict:
    with warnings.catch_warnings():
        # The released files are TorchScript; only their weights are used.
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated")
        return torch.jit.load(str(path), map_location="cpu").state_dict()


def _read_pickle(path: Path) -> StateDict:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch writes checksums, but does not check them
                raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


@dataclass(frozen=True)
class Limits:
    """Limits of a child process; memory is in addition to the parent's, and on Linux only."""

    seconds: float = 600.0
    gigabytes: float = 16.0


def run_limited(work: Callable[[], bytes], limits: Limits) -> bytes:
    """Run `work` in a child process that cannot write files, and return its bytes.

    Raises:
        ValueError: the work's own ValueError, OSError or RuntimeError, or a limit that it reached.
    """
    context = multiprocessing.get_context("fork")  # the child shares all imported modules
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run_child, args=(work, limits, sender), daemon=True)
    child.start()
    sender.close()
    try:
        late = not receiver.poll(limits.seconds)
        answer = b"" if late else receiver.recv_bytes()
    except EOFError:  # the child ended without an answer
        late, answer = False, b""
    finally:
        child.kill()
        child.join()
    kind, content = answer[:1], answer[1:]
    if kind == _RESULT:
        return content
    code = child.exitcode or 0
    status = signal.Signals(-code).name if code < 0 else f"status {code}"
    message = f"it ended without an answer, with {status}; it may take more memory"
    if late:
        message = f"it took longer than {limits.seconds:g} seconds and was stopped"
    if kind == _OUT_OF_MEMORY:
        message = f"it asked for more than {limits.gigabytes:g} GB of memory"
    raise ValueError(content.decode() or message)


def _run_child(work: Callable[[], bytes], limits: Limits, sender: Connection) -> NoReturn:
    import resource  # not on Windows, which has no fork either

    torch.set_num_threads(1)  # the child does not have the parent's threads
    seconds = int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # also if the parent is killed
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        pages = int(sizes.read_text().split()[0])
        most = pages * resource.getpagesize() + int(limits.gigabytes * (1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        answer = _RESULT + work()
    except MemoryError:
        answer = _OUT_OF_MEMORY
    except (ValueError, OSError, RuntimeError) as error:
        full = any(words in str(error) for words in _TORCH_OUT_OF_MEMORY)
        answer = _OUT_OF_MEMORY if full else _ERROR + str(error).encode()
    sender.send_bytes(answer)
    os._exit(0)  # skip the parent's exit handlers
