"""DataManager: the data set, its transforms, samplers, and loaders."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from dassl.data.datasets import build_dataset
from dassl.data.transforms.transforms import build_transform, interpolation_mode
from dassl.utils import read_image
from dassl.utils.registry import check_availability
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler
from torchvision.transforms import Compose, Normalize, Resize, ToTensor


def build_data_loader(
    cfg: Any,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: Callable | None = None,
) -> DataLoader:
    """Build a loader; in training a last, smaller batch is left out unless it is the only one.

    Raise ValueError if there are no images, or if the sampler makes no batch of them.
    """
    if not data_source:
        raise ValueError(
            f"no images to load for {'training' if is_train else 'evaluation'} of "
            f"{cfg.DATASET.NAME}: is the data complete?"
        )
    wrapper = dataset_wrapper or DatasetWrapper
    loader = DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, cfg, data_source, batch_size, n_domain, n_ins),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(loader) == 0:
        raise ValueError(
            f"{sampler_type} gives no batch of {batch_size} from {len(data_source)} images"
        )
    return loader


class DataManager:
    """The data set of a configuration with its loaders.

    Attributes: dataset, train_loader_x, train_loader_u and val_loader (either may be None),
    test_loader, num_classes, num_source_domains, lab2cname.
    """

    def __init__(
        self,
        cfg: Any,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: Callable | None = None,
    ) -> None:
        self.dataset = build_dataset(cfg)
        self._wrapper = dataset_wrapper
        tfm_train = _transform(cfg, custom_tfm_train, is_train=True)
        tfm_test = _transform(cfg, custom_tfm_test, is_train=False)

        node_x, node_u, node_test = (cfg.DATALOADER[key] for key in ("TRAIN_X", "TRAIN_U", "TEST"))
        if node_u.SAME_AS_X:
            node_u = node_x
        # In this order, because samplers draw random numbers when they are built.
        self.train_loader_x = self._loader(cfg, node_x, self.dataset.train_x, tfm_train, True)
        self.train_loader_u = self.val_loader = None
        if self.dataset.train_u:
            self.train_loader_u = self._loader(cfg, node_u, self.dataset.train_u, tfm_train, True)
        if self.dataset.val:
            self.val_loader = self._loader(cfg, node_test, self.dataset.val, tfm_test, False)
        self.test_loader = self._loader(cfg, node_test, self.dataset.test, tfm_test, False)

        self.num_classes = self.dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname = self.dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _loader(
        self, cfg: Any, node: Any, data: Sequence | None, transform: Any, is_train: bool
    ) -> DataLoader:
        return build_data_loader(
            cfg,
            sampler_type=node.SAMPLER,
            data_source=data,
            batch_size=node.BATCH_SIZE,
            n_domain=node.get("N_DOMAIN", 0),  # TEST has neither
            n_ins=node.get("N_INS", 2),
            tfm=transform,
            is_train=is_train,
            dataset_wrapper=self._wrapper,
        )

    def show_dataset_summary(self, cfg: Any) -> None:
        """Print name, domains, and numbers of classes and images as a table."""
        dataset = self.dataset
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        parts = {name: getattr(dataset, name) for name in ("train_x", "train_u", "val", "test")}
        rows += [[f"# {name}", f"{len(items):,}"] for name, items in parts.items() if items]
        print(tabulate(rows))


def _transform(cfg: Any, custom: Any, *, is_train: bool) -> Any:
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    print(f"* Using custom transform for {'training' if is_train else 'testing'}")
    return custom


class DatasetWrapper(Dataset):
    """Images as dictionaries: label, domain, impath, index, img.

    A list of transforms gives img, img2, img3, ... DATALOADER.K_TRANSFORMS > 1 makes each of them a
    list of that many augmented views, in training only; this needs a transform.
    DATALOADER.RETURN_IMG0 adds img0, not augmented. The transform of `build_transform` returns
    tensors (3, H, W).
    """

    def __init__(
        self, cfg: Any, data_source: Sequence, transform: Any = None, is_train: bool = False
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"Cannot augment the image {self.k_tfm} times because transform is None"
            )
        self.to_tensor = _plain_transform(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict:
        item = self.data_source[idx]
        image = read_image(item.impath)
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
            **self._views(image),
        }
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output

    def _views(self, image: Any) -> dict:
        if self.transform is None:
            return {"img": image}
        several = isinstance(self.transform, (list, tuple))
        views = {}
        for number, transform in enumerate(self.transform if several else [self.transform], 1):
            augmented = [transform(image) for _ in range(self.k_tfm)]
            name = f"img{number}" if number > 1 else "img"
            views[name] = augmented[0] if self.k_tfm == 1 else augmented
        return views


def _plain_transform(cfg: Any) -> Compose:
    """Return the transform of img0: resize, tensor, and the normalisation if chosen."""
    steps = [Resize(cfg.INPUT.SIZE, interpolation=interpolation_mode(cfg)), ToTensor()]
    if "normalize" in cfg.INPUT.TRANSFORMS:
        steps.append(Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
    return Compose(steps)


# Samplers: the order in which images are visited, with the random draws of Dassl


def _indices_by(data_source: Sequence, attribute: str) -> dict[int, list[int]]:
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(groups)


class _DomainSampler(Sampler):
    """Equally many images from each of n_domain domains per batch, until a domain has too few."""

    def __init__(self, data_source: Sequence, batch_size: int, n_domain: int | None = None) -> None:
        self.indices = _indices_by(data_source, "domain")
        self.domains = list(self.indices)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        if self.n_domain > len(self.domains):
            raise ValueError(
                f"n_domain must be at most {len(self.domains)}, the number of domains in the "
                f"data, got {self.n_domain}"
            )
        if batch_size % self.n_domain:
            raise ValueError(
                f"batch_size must be a multiple of the {self.n_domain} domains per batch, "
                f"got {batch_size}"
            )
        self.per_domain = batch_size // self.n_domain
        smallest = min(self.domains, key=lambda domain: len(self.indices[domain]))
        if len(self.indices[smallest]) < self.per_domain:
            raise ValueError(
                f"a batch takes {self.per_domain} images per domain, but domain {smallest} has "
                f"{len(self.indices[smallest])}"
            )
        iter(self)  # sets the length

    def _next_domains(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        remaining = {domain: list(indices) for domain, indices in self.indices.items()}
        order: list[int] = []
        while min(map(len, remaining.values())) >= self.per_domain:
            for domain in self._next_domains():
                drawn = random.sample(remaining[domain], self.per_domain)
                order.extend(drawn)
                gone = set(drawn)
                remaining[domain] = [i for i in remaining[domain] if i not in gone]
        self.length = len(order)
        return iter(order)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_DomainSampler):
    """Each batch contains batch_size / n_domain images from each of n_domain random domains."""

    def _next_domains(self) -> list[int]:
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """Each batch contains equally many random images from every domain, domains in order."""

    def _next_domains(self) -> list[int]:
        return sorted(self.domains)


class RandomClassSampler(Sampler):
    """Each batch contains n_ins images from each of batch_size // n_ins random classes."""

    def __init__(self, data_source: Sequence, batch_size: int, n_ins: int) -> None:
        if batch_size < n_ins:
            raise ValueError(f"batch_size={batch_size} must be no less than n_ins={n_ins}")
        self.indices = _indices_by(data_source, "label")
        self.n_ins = n_ins
        self.classes_per_batch = batch_size // n_ins
        if len(self.indices) < self.classes_per_batch:
            raise ValueError(
                f"a batch takes {self.classes_per_batch} classes (batch_size {batch_size}, "
                f"n_ins {n_ins}), but the data has {len(self.indices)}"
            )
        iter(self)  # sets the length

    def _chunks(self, indices: list[int]) -> list[list[int]]:
        """Shuffle one class and cut it into groups of n_ins; a remainder is left out."""
        shuffled: Any = list(indices)
        if len(shuffled) < self.n_ins:
            shuffled = np.random.choice(shuffled, size=self.n_ins, replace=True)
        random.shuffle(shuffled)
        shuffled = [int(index) for index in shuffled]
        whole = len(shuffled) - len(shuffled) % self.n_ins
        return [shuffled[start : start + self.n_ins] for start in range(0, whole, self.n_ins)]

    def __iter__(self) -> Iterator[int]:
        chunks = {label: self._chunks(indices) for label, indices in self.indices.items()}
        labels = list(chunks)
        order: list[int] = []
        while len(labels) >= self.classes_per_batch:
            for label in random.sample(labels, self.classes_per_batch):
                order.extend(chunks[label].pop(0))
                if not chunks[label]:
                    labels.remove(label)
        self.length = len(order)
        return iter(order)

    def __len__(self) -> int:
        return self.length


def build_sampler(
    sampler_type: str,
    cfg: Any = None,  # noqa: ARG001 (Dassl's signature)
    data_source: Sequence = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """Build one of the five samplers by name; raise ValueError for an unknown one."""
    samplers = {
        "RandomSampler": lambda: RandomSampler(data_source),
        "SequentialSampler": lambda: SequentialSampler(data_source),
        "RandomDomainSampler": lambda: RandomDomainSampler(data_source, batch_size, n_domain),
        "SeqDomainSampler": lambda: SeqDomainSampler(data_source, batch_size),
        "RandomClassSampler": lambda: RandomClassSampler(data_source, batch_size, n_ins),
    }
    check_availability(sampler_type, list(samplers), "sampler")
    return samplers[sampler_type]()
