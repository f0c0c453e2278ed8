"""A digest beside a file: `weights.pt.sha256` holds what `sha256sum weights.pt` prints.

Who puts it there vouches for the bytes: with it, a file of a format without checksums is read.
"""

from __future__ import annotations

from pathlib import Path

from causalclip.files.atomic import replacing
from causalclip.files.download import file_digest


def beside(path: Path) -> Path:
    """Where the digest of a file stands."""
    return path.with_name(path.name + ".sha256")


def write_digest(path: Path) -> None:
    """Put the digest of a file beside it, as sha256sum prints it."""
    with replacing(beside(path)) as part:
        part.write_text(f"{file_digest(path)}  {path.name}\n", encoding="utf-8")


def is_vouched_for(path: Path) -> bool:
    """Whether a digest stands beside the file; it is then the file's.

    Raises:
        ValueError: the file is not what its digest says; names both files.
    """
    if not beside(path).is_file():
        return False
    words = beside(path).read_text(encoding="utf-8", errors="replace").split()
    found = file_digest(path)
    if [word.lower() for word in words[:1]] != [found]:  # some systems print it in capitals
        raise ValueError(
            f"{path} is not what {beside(path).name} beside it says: its sha256 is {found}, "
            f"expected {' '.join(words[:1]) or 'nothing'}; get the file again"
        )
    return True


def require_vouched_for(path: Path) -> None:
    """For a file whose format has no checksums: a flipped bit in it is still a number.

    Raises:
        ValueError: no digest stands beside it, or another; says how to vouch for it.
    """
    if not is_vouched_for(path):
        raise ValueError(
            f"{path} is of torch before 1.6, whose files have no checksums: damage cannot be "
            f"noticed. If you know the file to be whole, say so by its digest beside it: "
            f"sha256sum {path.name} > {beside(path).name}"
        )
