"""Datum and DatasetBase: labelled image paths, few-shot draws, class names, downloads."""

from __future__ import annotations

import os.path as osp
import platform
import random
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from dassl.utils.registry import did_you_mean
from dassl.utils.tools import download_url, mkdir_if_missing


def _read_only(attribute: str, doc: str) -> Any:
    return property(attrgetter(attribute), doc=doc)


class Datum:
    """One image: its path, class label, domain label and class name; read-only.

    The attribute names are Dassl's: each package can read pickles of the other. Raise
    FileNotFoundError for a path that does not exist.
    """

    def __init__(
        self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""
    ) -> None:
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a str, got {type(impath).__name__}")
        if not osp.isfile(impath):
            raise FileNotFoundError(f'no image at "{impath}"')
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    impath: str = _read_only("_impath", "Path of the image file.")
    label: int = _read_only("_label", "Class label.")
    domain: int = _read_only("_domain", "Domain label.")
    classname: str = _read_only("_classname", "Class name.")


class DatasetBase:
    """Training, unlabelled, validation and test images, and the classes among them."""

    dataset_dir = ""  # folder of the data set below DATASET.ROOT
    domains: list[str] = []

    def __init__(
        self,
        train_x: Sequence[Datum] | None = None,
        train_u: Sequence[Datum] | None = None,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] | None = None,
    ) -> None:
        if not train_x:
            raise ValueError("the data set has no labelled training images (train_x is empty)")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)
        self._complete_classnames([*(val or ()), *(test or ())])
        self._num_classes = len(self._classnames)

    def _complete_classnames(self, evaluated: Sequence[Datum]) -> None:
        """Take the names of classes without a training image from the `evaluated` images.

        Without this, a class missing from the training images would be missing from `classnames`,
        and each class after it would get the name of the next class.
        """
        added: dict[int, str] = {}
        for item in evaluated:
            if item.label not in self._lab2cname:
                added.setdefault(item.label, item.classname)
        if added:
            listed = ", ".join(f"{label} ({name})" for label, name in sorted(added.items()))
            print(f"Note: no training image for class {listed}; name taken from val and test")
        self._lab2cname = {**self._lab2cname, **added}
        gaps = sorted(set(range(max(self._lab2cname) + 1)) - set(self._lab2cname))
        if gaps:
            raise ValueError(
                f"labels must be contiguous from 0 to {max(self._lab2cname)}, but no image of any "
                f"split has label {', '.join(map(str, gaps))}: is a class folder missing?"
            )
        self._classnames = [self._lab2cname[label] for label in sorted(self._lab2cname)]

    train_x: Sequence[Datum] = _read_only("_train_x", "Labelled training images.")
    train_u: Sequence[Datum] | None = _read_only("_train_u", "Unlabelled training images, or None.")
    val: Sequence[Datum] | None = _read_only("_val", "Validation images, or None.")
    test: Sequence[Datum] | None = _read_only("_test", "Test images.")
    lab2cname: dict[int, str] = _read_only("_lab2cname", "Class name of each label.")
    classnames: list[str] = _read_only("_classnames", "Class names in the order of the labels.")
    num_classes: int = _read_only("_num_classes", "Number of classes; always len(classnames).")

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return the class name of each label, and the names sorted by label.

        Raise ValueError for a label with two names.
        """
        names: dict[int, str] = {}
        for item in data_source:
            if names.setdefault(item.label, item.classname) != item.classname:
                raise ValueError(
                    f"label {item.label} has two class names, "
                    f"{names[item.label]!r} and {item.classname!r}"
                )
        return names, [names[label] for label in sorted(names)]

    def check_input_domains(
        self, source_domains: Sequence[str], target_domains: Sequence[str]
    ) -> None:
        """Raise ValueError for an empty list of domains, or one that this data set lacks."""
        for key, names in (("SOURCE", source_domains), ("TARGET", target_domains)):
            if not names:
                raise ValueError(
                    f"DATASET.{key}_DOMAINS must not be empty; domains: {', '.join(self.domains)}"
                )
            if unknown := [name for name in names if name not in self.domains]:
                raise ValueError(
                    f"Input domain must belong to {list(self.domains)}, "
                    f"but got [{unknown[0]}]{did_you_mean(unknown[0], self.domains)}"
                )

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download the archive `url` to `dst` (.zip, .tar, .tar.gz) and unpack it into its folder.

        Raises:
            RuntimeError: a .tar under a Python whose tarfile cannot keep members in their folder.
        """
        if ".tar" in osp.basename(dst) and not hasattr(tarfile, "data_filter"):
            raise RuntimeError(
                f"unpacking {dst} needs Python 3.10.12, 3.11.4 or a later one (tarfile's filters), "
                f"got {platform.python_version()}"
            )
        folder = osp.dirname(dst)
        mkdir_if_missing(folder)
        if from_gdrive:
            import gdown  # only downloads need it

            if gdown.download(url, dst, quiet=False) is None:
                raise OSError(f"could not download {url}; fetch it by hand and put it at {dst}")
        else:
            download_url(url, dst)
        print("Extracting file ...")
        if tarfile.is_tarfile(dst):
            with tarfile.open(dst) as archive:
                archive.extractall(folder, filter="data")
        else:
            shutil.unpack_archive(dst, folder)
        print(f"File extracted to {folder}")

    def generate_fewshot_dataset(
        self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Sequence:
        """Draw `num_shots` images per class from each source with Python's global generator.

        Classes come in the order of their first image. A class with fewer images keeps them all
        (drawn with replacement when `repeat`). num_shots below 1 returns the sources unchanged.
        One source gives a list, several give a list of lists.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        drawn = [self._draw(source, num_shots, repeat) for source in data_sources]
        return drawn[0] if len(drawn) == 1 else drawn

    def _draw(self, source: Sequence[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        drawn, short = [], {}
        for items in self.split_dataset_by_label(source).values():
            if len(items) >= num_shots:
                drawn.extend(random.sample(items, num_shots))
                continue
            short[items[0].classname] = len(items)
            drawn.extend(random.choices(items, k=num_shots) if repeat else items)
        if short:
            listed = ", ".join(f"{name} ({count})" for name, count in short.items())
            print(f"Note: fewer than {num_shots} images in {len(short)} classes: {listed}")
        return drawn

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Group images by label, labels in the order of their first image."""
        groups = defaultdict(list)
        for item in data_source:
            groups[item.label].append(item)
        return groups
