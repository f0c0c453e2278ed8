"""Your own images from a CSV or Parquet table, without Python (`Table`).

Columns: path, split (train, val or test), classname and/or label, and perhaps domain.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from yacs.config import CfgNode

from causalclip.data.annotations import encoding_of
from causalclip.data.listing import check_domains, listed, require_files, require_root
from causalclip.data.splits import LABEL, PARTS, Items, Parts, check_labels, is_plain, slashes
from causalclip.datasets.folders import OwnSet

if TYPE_CHECKING:
    import pandas as pd


class Table(OwnSet):
    """The images that the rows of `DATASET.TABLE` name, relative to the table's own folder.

    If the settings name source and target domains, the training and validation rows of the sources
    and the test rows of the targets are used; otherwise the rows of all domains.
    """

    def read(self, settings: CfgNode) -> tuple[Path, Parts]:
        """Read the table and pick the rows of the domains; refuse a wrong column, row or domain."""
        path = find_table(settings.ROOT, settings.TABLE)
        frame = label_rows(read_table(path), path)
        self.domains = sorted(set(frame.get("domain", ())))
        sources, targets = list(settings.SOURCE_DOMAINS), list(settings.TARGET_DOMAINS)
        chosen = {part: frame[frame["split"] == part] for part in PARTS}
        if sources or targets:
            check_domains(sources, targets, self.domains, where=str(path))
            of = {"train": sources, "val": sources, "test": targets}
            chosen = {part: rows[rows["domain"].isin(of[part])] for part, rows in chosen.items()}
        rows = {part: _rows(chosen[part]) for part in PARTS}
        check_labels(rows, str(path))
        if not rows["test"]:
            raise ValueError(f"{path} must have rows with split 'test' in the domains to be tested")
        require_files([row[0] for part in PARTS for row in rows[part]], of=str(path))
        order = [*sources, *targets] or self.domains
        numbers = {domain: number for number, domain in enumerate(order)}
        train, val, test = (_items(chosen[part], numbers) for part in PARTS)
        return path.parent, (train, val, test)


def find_table(root: str, table: str) -> Path:
    """Return the path of the table, absolute or below the root.

    Raises:
        ValueError: for an empty name.
        FileNotFoundError: if there is no such file.
    """
    if not table:
        raise ValueError("DATASET.TABLE must name a .csv or .parquet file, got ''")
    path = Path(os.path.expanduser(table))
    folder = path.parent if path.is_absolute() else require_root(root, str(path.parent))
    path = folder / path.name
    if not path.is_file():
        raise FileNotFoundError(f"DATASET.TABLE must be an existing file, got {path}")
    return path


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as text; words like "None" and "NA" are class names, not gaps.

    Raises:
        ValueError: for a file that is no table, or lacks a column.
    """
    import pandas as pd  # large, and only a table needs it

    if path.suffix.lower() == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except (ValueError, OSError) as error:  # pyarrow's; neither names the file
            raise ValueError(f"{path} is damaged or no Parquet table: {error}") from error
    else:
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} must be a CSV table in UTF-8, got {encoding_of(path, error)}"
            ) from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{path} must be a CSV table in UTF-8, got {error}") from None
    missing = [column for column in ("path", "split") if column not in frame]
    if not {"classname", "label"} & set(frame):
        missing.append("classname or label")
    if missing:
        raise ValueError(
            f"{path} lacks the column {' and '.join(missing)}: it has "
            f"{', '.join(map(str, frame.columns))}; needed are path, split, and classname or label"
        )
    return frame


def label_rows(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the frame with absolute paths, int labels and class names, each row checked.

    Without label numbers, classes are numbered in alphabetical order.

    Raises:
        ValueError: for a value that is not allowed; names the row, the column and the value.
    """
    frame = frame.astype(object).where(frame.notna(), "").astype(str)  # Parquet: missing values

    def require(column: str, valid: pd.Series, allowed: str) -> None:
        if not valid.all():
            row = int((~valid).to_numpy().argmax())
            value = frame[column].iloc[row]
            raise ValueError(f"{path}, row {row + 1}: {column} must be {allowed}, got {value!r}")

    require("split", frame["split"].isin(PARTS), "train, val or test")
    if "classname" not in frame:
        words = ~frame["label"].str.isdigit()
        require("label", words, "a class name where there is no classname")
        frame = frame.rename(columns={"label": "classname"})
    if "label" in frame:
        require("label", frame["label"].str.fullmatch(LABEL), "a number >= 0")
        frame["label"] = frame["label"].astype(int)
    else:
        frame["label"] = frame["classname"].factorize(sort=True)[0]
    require("classname", frame["classname"].str.strip() != "", "text")
    frame["path"] = frame["path"].map(slashes)
    require("path", frame["path"].map(is_plain), "below the table's folder, in one spelling")
    frame["path"] = [str(path.parent / value) for value in frame["path"]]
    return frame


def _rows(frame: pd.DataFrame) -> list[tuple[str, int, str]]:
    return list(zip(frame["path"], frame["label"], frame["classname"], strict=True))


def _items(frame: pd.DataFrame, numbers: dict[str, int]) -> Items:
    domains = frame["domain"].map(numbers) if "domain" in frame else [0] * len(frame)
    return [
        listed(path, int(label), domain=int(domain), classname=name)
        for (path, label, name), domain in zip(_rows(frame), domains, strict=True)
    ]


DATASETS = (Table,)
