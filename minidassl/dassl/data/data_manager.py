"""DataManager: the data set, its transforms, and the loaders for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from dassl.data.datasets import build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms.transforms import build_transform, interpolation_mode
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
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

    No images, or a sampler that makes no batch of them, are a ValueError.
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

    Attributes: dataset, train_loader_x, train_loader_u, val_loader (the two may be None),
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

    Several transforms give img, img2, img3 ...; DATALOADER.K_TRANSFORMS > 1 makes each a list of
    that many augmented views (training only); DATALOADER.RETURN_IMG0 adds img0, not augmented.
    Each is (3, H, W) with the transforms of `build_transform`. Several views need one.
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
