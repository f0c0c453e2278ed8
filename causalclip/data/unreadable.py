"""What happens to image files that cannot be read: an error, or left out and counted.

`DATASET.UNREADABLE: skip` reads every chosen image once when the data set is built, because a
loader that drops images on the way gives batches, and predictions, of a size nobody expects.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm
from yacs.config import CfgNode

from causalclip.data.splits import Items

# What Pillow raises for broken files, and for those with more pixels than it lets pass.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
UNREADABLE_DEFAULTS = {"UNREADABLE": "error"}


def leave_out_unreadable(cfg: CfgNode, *splits: Items) -> tuple[Items, ...]:
    """Return the splits without images that cannot be decoded if the policy is `skip`, and say so.

    Under `error`, the default, nothing is read here, and the loader raises OSError with the path.

    Raises:
        ValueError: for another policy.
    """
    policy = getattr(cfg.DATASET, "UNREADABLE", "error")
    if policy not in ("error", "skip"):
        raise ValueError(f"DATASET.UNREADABLE must be 'error' or 'skip', got {policy!r}")
    if policy == "error":
        return splits
    paths = list(dict.fromkeys(item.impath for items in splits for item in items))
    bad = unreadable(paths)
    _say(bad, len(paths))
    return tuple([item for item in items if item.impath not in bad] for items in splits)


def unreadable(paths: list[str]) -> dict[str, str]:
    """Return path -> reason for the images that cannot be decoded to the end."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        reasons = tqdm(pool.map(_reason, paths), total=len(paths), desc="Reading", disable=None)
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def _reason(path: str) -> str:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))  # JPEG: all bytes are still read, few pixels are made
            image.load()
            if image.mode in ("F", "I") and image.format != "PNG":
                return f"ValueError: {image.mode} pixels have no known range"
    except BROKEN as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _say(bad: dict[str, str], count: int) -> None:
    print(f"Left out {len(bad)} unreadable of {count} images")
    for path, why in list(bad.items())[:5]:
        print(f"  {ascii(path)[1:-1]}: {ascii(why)[1:-1]}")
