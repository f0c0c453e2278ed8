"""The helpers that trainers and data sets of the family import from `dassl.utils`."""

from __future__ import annotations

from dassl.utils.checkpoint import (
    CheckpointError,
    count_num_param,
    last_checkpoint_name,
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    resume_from_file,
    save_checkpoint,
)
from dassl.utils.environment import collect_env_info, set_random_seed
from dassl.utils.files import (
    check_isfile,
    download_url,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    write_json,
)
from dassl.utils.logger import Logger, setup_logger
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.names import UnknownNameError, check_availability, nearest_names, tolist_if_not
from dassl.utils.registry import Registry

__all__ = [
    "AverageMeter",
    "CheckpointError",
    "Logger",
    "MetricMeter",
    "Registry",
    "UnknownNameError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "download_url",
    "last_checkpoint_name",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "nearest_names",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "resume_from_file",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
