"""Snapshots of repositories on the Hugging Face Hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from causalclip.errors import UserError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Pattern of a repository's name, owner/name."""


def snapshot(
    name: str, kind: Literal["model", "dataset"], revision: str | None, patterns: Sequence[str]
) -> Path:
    """Download the files of a repository that match a pattern; return their folder.

    All files are of one commit, whose id is the folder's name. Without a connection, the files come
    from the cache of huggingface_hub.

    Raises:
        UserError: no such repository or revision, no connection, or no huggingface_hub.
    """
    hub = import_hub()
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    print(f"looking for the {kind} {name} on {ENDPOINT}", file=sys.stderr)
    options: dict[str, Any] = {"repo_type": kind, "revision": revision}
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(patterns), **options))
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no {kind} {name} for you (a private or gated one needs HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"the {kind} {name} on the hub has no revision {revision}") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"no {kind} {name} in the cache, and none from {ENDPOINT}: {reason}"
        ) from error


def import_hub() -> Any:
    """Return the module huggingface_hub.

    Raises:
        UserError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("the hub needs huggingface_hub: pip install 'causalclip[hub]'") from error
    return huggingface_hub
