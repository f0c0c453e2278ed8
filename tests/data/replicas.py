"""Small copies of the true layouts of all data sets: folders, names and annotation formats."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat


def jpeg(colour: tuple[int, int, int] = (120, 60, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


def put(path: Path, content: str | bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)
    return path


def put_images(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        put(folder / name)


def lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def caltech101(root: Path) -> None:
    images = root / "caltech-101" / "101_ObjectCategories"
    for i, name in enumerate(
        ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion"]
    ):
        put_images(images / name, (f"image_{n:04d}.jpg" for n in range(1, 9 + i)))
    put_images(images / "airplanes", (f"image_{n:04d}.jpg" for n in range(1, 12)))


def oxford_pets(root: Path) -> None:
    folder = root / "oxford_pets"
    breeds = {"Abyssinian": 1, "american_bulldog": 2, "Egyptian_Mau": 3}
    lists = {"trainval": range(100, 108), "test": range(200, 203)}
    for part, numbers in lists.items():
        rows = [f"{breed}_{n} {label} 1 1" for breed, label in breeds.items() for n in numbers]
        put(folder / "annotations" / f"{part}.txt", lines(rows))
        put_images(folder / "images", (f"{row.split()[0]}.jpg" for row in rows))
    put(folder / "annotations" / "xmls" / "Abyssinian_100.xml", "<annotation></annotation>")
    put(folder / "images" / "Abyssinian_100.mat", b"a stray file, as in the real archive")


def stanford_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW M3 Coupe 2012"]
    cell = np.empty((1, len(names)), dtype=object)
    cell[0] = names
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cell})
    for part, count, path in (
        ("cars_train", 21, folder / "devkit" / "cars_train_annos.mat"),
        ("cars_test", 9, folder / "cars_test_annos_withlabels.mat"),
    ):
        files = [f"{n:05d}.jpg" for n in range(1, count + 1)]
        put_images(folder / part, files)
        box = np.array([[10]])
        rows = [(np.array([[n % 3 + 1]], "uint8"), box, f) for n, f in enumerate(files)]
        dtype = [("class", object), ("bbox_x1", object), ("fname", object)]
        savemat(path, {"annotations": np.array([rows], dtype=dtype)})


def oxford_flowers(root: Path) -> None:
    folder = root / "oxford_flowers"
    labels = [3] * 7 + [1] * 8 + [2] * 9 + [1] * 3
    put_images(folder / "jpg", (f"image_{n:05d}.jpg" for n in range(1, len(labels) + 1)))
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], "uint8")})
    names = {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "canterbury bells"}
    put(folder / "cat_to_name.json", json.dumps(names))


def food101(root: Path) -> None:
    for i, name in enumerate(["apple_pie", "baby_back_ribs", "baklava"]):
        put_images(root / "food-101" / "images" / name, (f"{n}.jpg" for n in range(100, 108 + i)))
    put(root / "food-101" / "meta" / "classes.txt", lines(["apple_pie", "baklava"]))


def fgvc_aircraft(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    variants = ["707-320", "A300B4", "Cessna 172"]
    put(folder / "variants.txt", lines(variants))
    for part, start in (("train", 1000000), ("val", 2000000), ("test", 3000000)):
        rows = [f"{start + n} {variants[n % 3]}" for n in range(9)]
        put(folder / f"images_variant_{part}.txt", lines(rows))
        put_images(folder / "images", (f"{row.split()[0]}.jpg" for row in rows))


def sun397(root: Path) -> None:
    folder = root / "sun397"
    classes = ["a/abbey", "a/apse/indoor", "y/yard"]
    put(folder / "ClassName.txt", lines(f"/{name}" for name in classes))
    for part, letter, count in (("Training", "a", 8), ("Testing", "b", 3)):
        rows = [f"/{name}/sun_{letter}{n}.jpg" for name in classes for n in range(count)]
        put(folder / f"{part}_01.txt", lines(rows))
        put_images(folder / "SUN397", (row[1:] for row in rows))


def dtd(root: Path) -> None:
    for i, name in enumerate(["banded", "blotchy", "braided", "bubbly"]):
        names = (f"{name}_{n:04d}.jpg" for n in range(10 + i))
        put_images(root / "dtd" / "images" / name, names)


def eurosat(root: Path) -> None:
    for name in ["AnnualCrop", "Highway", "SeaLake"]:
        names = (f"{name}_{n}.jpg" for n in range(1, 11))
        put_images(root / "eurosat" / "2750" / name, names)


def ucf101(root: Path) -> None:
    folder = root / "ucf101"
    classes = {"ApplyEyeMakeup": 1, "Archery": 2, "YoYo": 3}
    rows = [f"{label} {name}" for name, label in classes.items()]
    put(folder / "ucfTrainTestlist" / "classInd.txt", lines(rows))
    renamed = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "Archery": "Archery", "YoYo": "Yo_Yo"}
    for part, groups in (("train", range(8, 15)), ("test", range(1, 4))):
        videos = [(name, f"v_{name}_g{g:02d}_c01") for name in classes for g in groups]
        suffix = {"train": lambda name: f" {classes[name]}", "test": lambda name: ""}[part]
        rows = [f"{name}/{video}.avi{suffix(name)}" for name, video in videos]
        put(folder / "ucfTrainTestlist" / f"{part}list01.txt", lines(rows))
        for name, video in videos:
            put(folder / "UCF-101-midframes" / renamed[name] / f"{video}.jpg")


WNIDS = {
    "n01440764": "tench",
    "n02012849": "crane bird",
    "n04355933": "sunglasses",
    "n04356056": "sunglasses",
}


def classnames(folder: Path) -> None:
    put(folder / "classnames.txt", lines(f"{wnid} {name}" for wnid, name in WNIDS.items()))


def imagenet(root: Path) -> None:
    folder = root / "imagenet"
    classnames(folder)
    for i, wnid in enumerate(WNIDS):
        names = (f"{wnid}_{n}.JPEG" for n in range(10, 18 + i))
        put_images(folder / "images" / "train" / wnid, names)
        names = (f"ILSVRC2012_val_{i}{n:03d}.JPEG" for n in range(3))
        put_images(folder / "images" / "val" / wnid, names)


def imagenetv2(root: Path) -> None:
    classnames(root / "imagenetv2")
    images = root / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    for label in range(len(WNIDS)):
        put_images(images / str(label), (f"{n}a.jpeg" for n in range(2)))


def _variant(folder: str, images: str, wnids: Iterable[str]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        classnames(root / folder)
        for wnid in wnids:
            put_images(root / folder / images / wnid, (f"{wnid}_{n}.jpg" for n in range(3)))
        if images.startswith("imagenet-"):
            put(root / folder / images / "README.txt", "As in the archive.")

    return build


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "Caltech101": caltech101,
    "OxfordPets": oxford_pets,
    "StanfordCars": stanford_cars,
    "OxfordFlowers": oxford_flowers,
    "Food101": food101,
    "FGVCAircraft": fgvc_aircraft,
    "SUN397": sun397,
    "DescribableTextures": dtd,
    "EuroSAT": eurosat,
    "UCF101": ucf101,
    "ImageNet": imagenet,
    "ImageNetV2": imagenetv2,
    "ImageNetSketch": _variant("imagenet-sketch", "images", WNIDS),
    "ImageNetA": _variant("imagenet-adversarial", "imagenet-a", list(WNIDS)[1:3]),
    "ImageNetR": _variant("imagenet-rendition", "imagenet-r", list(WNIDS)[::2]),
}


def domains(folder: Path, names: Iterable[str], classes: Iterable[str], *, count: int = 10) -> None:
    """Write DomainBed's tree: <domain>/<class>/*."""
    for domain in names:
        for i, name in enumerate(classes):
            put_images(folder / domain / name, (f"{name}_{n:02d}.jpg" for n in range(count + i)))


def edit_split(root: Path, edit: Callable[[dict], object]) -> None:
    """Change the split file of a Caltech101 below `root`."""
    path = root / "caltech-101" / "split_zhou_Caltech101.json"
    split = json.loads(path.read_text())
    edit(split)
    path.write_text(json.dumps(split))


def names(items) -> list[str]:
    """Return class/file of each item."""
    return ["/".join(Path(item.impath).parts[-2:]) for item in items]


CLASSES = ["None", "red_panda", "zebra"]


def paths(items) -> list[str]:
    return [item.impath for item in items]


def fill(folder: Path, count: int = 10) -> None:
    """Write class folders as a user's; each class has one image more than the one before."""
    for i, name in enumerate(CLASSES):
        put_images(folder / name, (f"{n}.jpg" for n in range(count + i)))


def table_rows(domains=("",)):
    for domain in domains:
        for name in CLASSES:
            for n, part in enumerate(["train"] * 5 + ["val"] * 2 + ["test"] * 3):
                path = os.path.join("images", domain, name, f"{n}.jpg")
                yield {"path": path, "classname": name, "split": part, "domain": domain}


def write_table(folder, rows, name="mine.csv", *, drop=()):
    rows = [{k: v for k, v in row.items() if k not in drop} for row in rows]
    for row in rows:
        if "path" in row:
            put(folder / row["path"])
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(folder / name)
        return
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
