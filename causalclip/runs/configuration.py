"""Build the configuration of a run from defaults, files, flags and KEY VALUE pairs."""

from __future__ import annotations

import argparse
import functools
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from causalclip import plugin
from causalclip.clip.backbone import load_clip
from causalclip.clip.openai_clip import ActivationError
from causalclip.errors import CONFIGURATION_ERRORS, UserError, near, unknown
from causalclip.records.identity import Settings, run_settings
from causalclip.runs.flags import KEY, parser
from causalclip.settings.check import check_settings, flatten
from causalclip.settings.config_file import as_text, read_config, typed_value
from causalclip.settings.table import SETTINGS

# isort: split
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY


def configure(args: argparse.Namespace) -> CfgNode:
    """Return the frozen configuration of a command line, with trainer and data set checked.

    Raises:
        UserError: an unknown name, key or module, a wrong value, or no folder of data.
        ValueError: a configuration file that cannot be used.
    """
    plugin.register_imports(args.imports)
    cfg = cfg_from_args(args)
    cfg.freeze()
    check_names(cfg)
    return cfg


def cfg_from_args(args: argparse.Namespace) -> CfgNode:
    """Return the defaults, overridden by the files of data set and method, flags, and pairs.

    Raises:
        UserError: a missing file, an unknown key, a wrong type, or options that are no pairs.
        ValueError: a configuration file that cannot be used.
    """
    for flag in ("source_domains", "target_domains", "transforms"):
        taken = [word for word in getattr(args, flag) or () if KEY.fullmatch(word.split("=")[0])]
        if taken:
            name = f"--{flag.replace('_', '-')}"
            raise UserError(f"{name} took {taken[0]}: write -- before the KEY VALUE pairs after it")
    cfg = _cfg_from_files((args.dataset_config_file, *args.config_file))
    cfg.CONFIG_NAME = "+".join(Path(path).stem for path in args.config_file)
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "PROTOCOL": args.protocol,
        "PROTOCOL_PART": args.part,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
        "MODEL.BACKBONE.TRUST_TORCHSCRIPT": args.trust_torchscript,
    }
    for key, value in flags.items():
        if value:
            *parents, last = key.split(".")
            functools.reduce(lambda node, name: node[name], parents, cfg)[last] = value
    if args.seed is not None:
        cfg.SEED = args.seed
    if args.no_cache:
        cfg.FEATURE_CACHE = False
    merge_pairs(cfg, args.opts[args.opts[:1] == ["--"] :])
    return cfg


def merge_pairs(cfg: CfgNode, pairs: Mapping[str, Any] | Sequence[Any]) -> None:
    """Override settings with a mapping of keys to values, or with a list KEY, VALUE, ...

    A VALUE is the value itself or its text on the command line. Text for a string setting stays a
    string, with or without quotes.

    Raises:
        UserError: an odd number of words, a flag, an unknown key (names the nearest), a wrong type.
    """
    if isinstance(pairs, Mapping):
        pairs = [word for pair in pairs.items() for word in pair]
    for word in pairs[::2]:
        key, _, value = str(word).partition("=")
        if value and KEY.fullmatch(key):
            raise UserError(f"settings come as KEY VALUE: write {key} {value}, not {word}")
        if key.startswith("--"):
            raise UserError(f"flags must come before the KEY VALUE pairs, got {key} after them")
    if len(pairs) % 2:
        raise UserError(f"options must come as KEY VALUE pairs, got {' '.join(pairs)}")
    known = dict(flatten(cfg))
    for key in pairs[::2]:
        if key not in known:
            raise UserError(f"no setting {key}{near(key, known)}")
    words, values = list(pairs), zip(pairs[::2], pairs[1::2], strict=True)
    try:
        words[1::2] = [typed_value(key, value, known[key]) for key, value in values]
        cfg.merge_from_list(words)
    except (*CONFIGURATION_ERRORS, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def cfg_from(files: Sequence[Path], pairs: Mapping[str, Any] | Sequence[Any]) -> CfgNode:
    """Return the defaults, overridden by files, then by pairs; see `merge_pairs`.

    Raises:
        UserError: a missing file, an unknown key, or a wrong type.
        ValueError: a configuration file that cannot be used.
    """
    cfg = _cfg_from_files(tuple(map(str, files)))
    merge_pairs(cfg, pairs)
    return cfg


def _cfg_from_files(paths: tuple[str, ...]) -> CfgNode:
    """Return a new configuration; unpickling it takes a sixth of the time of `clone`."""
    return pickle.loads(_pickled_cfg(paths))


@functools.lru_cache(maxsize=512)
def _pickled_cfg(paths: tuple[str, ...]) -> bytes:
    plugin.register_all()
    cfg = plugin.default_cfg()
    for path in paths:
        if path:
            if not Path(path).is_file():
                raise UserError(f"no configuration file {path}")
            merge_file(cfg, path)
    return pickle.dumps(cfg)


def merge_file(cfg: CfgNode, path: str) -> None:
    """Override settings with those of a YAML file and of the file that its `_BASE_` names.

    Raises:
        ValueError: not YAML, or no mapping of known settings; names the file, and the line.
        OSError: it cannot be read.
    """
    content, known = read_config(path), dict(flatten(cfg))
    for key, _ in flatten(content):
        if key not in known:
            raise ValueError(f"{path}: no setting {key}{near(key, known)}")
    try:
        cfg.merge_from_other_cfg(type(cfg)(as_text("", cfg, content)))
    except (*CONFIGURATION_ERRORS, ValueError) as error:
        message = " ".join(str(error.args[0]).split()) if error.args else type(error).__name__
        raise ValueError(f"{path}: {message:.500}") from error
    if cfg.MODEL.BACKBONE.get("TRUST_TORCHSCRIPT"):
        raise ValueError(
            f"{path} must not set MODEL.BACKBONE.TRUST_TORCHSCRIPT: only the command line can give "
            "this permission, with --trust-torchscript"
        )


def check_names(cfg: CfgNode) -> None:
    """Raise for an unknown trainer or data set, or a data root that is no folder.

    Raises:
        UserError: names it, and the nearest names.
        ValueError: OUTPUT_DIR, RESUME or DATASET.ROOT is not text.
    """
    places = {"OUTPUT_DIR": cfg.OUTPUT_DIR, "RESUME": cfg.RESUME, "DATASET.ROOT": cfg.DATASET.ROOT}
    check_settings(places, SETTINGS, where="")
    for what, name, registry in (
        ("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("data set", cfg.DATASET.NAME, DATASET_REGISTRY),
    ):
        known = registry.registered_names()
        if name not in known:
            raise UserError(unknown(what, str(name), known))
    if not Path(cfg.DATASET.ROOT).is_dir():
        raise UserError(
            f"data root {cfg.DATASET.ROOT!r} is not a folder: create it, or give --root"
        )


# Settings that identify a run


def trainer_class(name: str) -> Any:
    """Return the trainer that is registered under a name.

    Raises:
        UserError: no such trainer; names the nearest.
    """
    if name not in TRAINER_REGISTRY.registered_names():
        plugin.register_all()
    if name not in (known := TRAINER_REGISTRY.registered_names()):
        raise UserError(unknown("trainer", name, known))
    return TRAINER_REGISTRY.get(name)


def method_node(name: str) -> str:
    """Return the name of a trainer's node below TRAINER; "" if the trainer has none."""
    known = name in TRAINER_REGISTRY.registered_names()
    return getattr(TRAINER_REGISTRY.get(name), "config_node", "") if known else ""


def settings_of_cfg(cfg: CfgNode) -> Settings:
    """Return the settings of a configuration that can change a result."""
    return run_settings(cfg, method_node(cfg.TRAINER.NAME))


@functools.lru_cache(maxsize=100_000)
def planned_settings(arguments: tuple[str, ...]) -> Settings:
    """Return the settings of a `causalclip train` command that can change its result.

    Raises:
        UserError: an unknown key, or a wrong value.
        ValueError: a configuration file that cannot be used.
    """
    return settings_of_cfg(cfg_of_words(arguments))


def cfg_of_words(arguments: Sequence[str]) -> CfgNode:
    """Return the configuration for arguments of `causalclip train`; raise as `configure`."""
    args = parser().parse_args(arguments)
    plugin.register_imports(args.imports)
    return cfg_from_args(args)


def loadable(arguments: Sequence[str]) -> None:
    """Raise if the backbone of a command line is a file that cannot be loaded.

    Raises:
        ValueError: the file contains no CLIP, or does not state its activation.
    """
    node = cfg_of_words(arguments).MODEL.BACKBONE
    _load(node.NAME, trust_torchscript=node.TRUST_TORCHSCRIPT, activation=node.ACTIVATION)


@functools.lru_cache(maxsize=16)  # an ablation checks the same file many times
def _load(name: str, **how: Any) -> None:
    try:
        load_clip(name, **how)
    except ActivationError as error:
        raise ValueError(f"MODEL.BACKBONE.ACTIVATION: {error}") from error


@functools.cache
def default_settings() -> Settings:
    """Return the defaults of all settings that can change a result."""
    return run_settings(_cfg_from_files(()))
