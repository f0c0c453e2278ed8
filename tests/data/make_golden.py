"""Makes golden_coop.json and golden_domainbed.json by running the published code on our replicas.

    python make_golden.py --coop COOP --dassl DASSL --domainbed DOMAINBED --caltech FOLDER

The first three are checkouts, FOLDER holds caltech-101/ of the test data. Listings are sorted while
the published code runs, because its draws from folders depend on the file system otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace

import replicas

HERE = Path(__file__).parent
SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)


def settings(root, *, shots=-1, seed=1, subsample="all"):
    dataset = SimpleNamespace(ROOT=str(root), NUM_SHOTS=shots, SUBSAMPLE_CLASSES=subsample)
    return SimpleNamespace(SEED=seed, DATASET=dataset)


def rows(items, root):
    return [[os.path.relpath(i.impath, root), i.label, i.classname] for i in items or ()]


def parts(dataset, root):
    return {p: rows(getattr(dataset, a), root) for p, a in PARTS.items()}


PARTS = {"train": "train_x", "val": "val", "test": "test"}


def digest(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def quiet(call):
    stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
    try:
        return call()
    finally:
        sys.stdout.close()
        sys.stdout = stdout


def run_replicas(registry):
    found = {}
    for name, build in replicas.LAYOUTS.items():
        with tempfile.TemporaryDirectory() as root:
            build(Path(root))
            random.seed(5)
            loaded = quiet(lambda n=name, r=root: registry.get(n)(settings(r, shots=2, seed=5)))
            found[name] = {"parts": parts(loaded, root), "after": random.random()}
    return found


def run_caltech(registry, folder):
    found = {}
    cache = Path(folder) / "caltech-101" / "split_fewshot"
    for seed in SEEDS:
        for shots in SHOTS:
            shutil.rmtree(cache, ignore_errors=True)
            for subsample in ("all", "base", "new"):
                random.seed(seed)
                cfg = settings(folder, shots=shots, seed=seed, subsample=subsample)
                loaded = quiet(lambda c=cfg: registry.get("Caltech101")(c))
                found[f"{shots} {seed} {subsample}"] = digest(parts(loaded, folder))
    shutil.rmtree(cache)
    return found


def run_domainbed():
    from domainbed.lib import misc  # pyright: ignore (of a checkout of theirs)

    found = {}
    for count, trial, environment in ((10, 0, 0), (33, 0, 3), (33, 1, 3), (57, 2, 1)):
        out, _ = misc.split_dataset(
            list(range(count)), int(count * 0.2), misc.seed_hash(trial, environment)
        )
        found[f"{count} {trial} {environment}"] = [out[i] for i in range(len(out))]
    return found


def commit(folder):
    text = Path(folder, "COMMIT")
    if text.is_file():
        return text.read_text().strip()
    call = ["git", "-C", folder, "rev-parse", "HEAD"]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


def prepare(args):
    wilds = types.ModuleType("dassl.data.datasets.dg.wilds")
    wilds.__all__ = []  # it needs the package wilds for nothing that is run here
    sys.modules[wilds.__name__] = wilds
    sys.path[:0] = [args.coop, args.dassl, args.domainbed]
    listdir = os.listdir
    os.listdir = lambda *a: sorted(listdir(*a))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("coop", "dassl", "domainbed", "caltech"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    prepare(args)
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets  # CoOp's

    for module in Path(args.coop, "datasets").glob("*.py"):
        importlib.import_module(f"datasets.{module.stem}")
    # CoOp counts to 1,000 whatever is there; the replica has a few classes only.
    datasets.imagenetv2.range = lambda _: range(len(replicas.WNIDS))
    coop = {
        "source": {
            "KaiyangZhou/CoOp": commit(args.coop),
            "KaiyangZhou/Dassl.pytorch": commit(args.dassl),
        },
        "replicas": run_replicas(DATASET_REGISTRY),
        "caltech": run_caltech(DATASET_REGISTRY, args.caltech),
    }
    (HERE / "golden_coop.json").write_text(json.dumps(coop) + "\n")
    domainbed = {
        "source": {"facebookresearch/DomainBed": commit(args.domainbed)},
        "held_out": run_domainbed(),
    }
    (HERE / "golden_domainbed.json").write_text(json.dumps(domainbed) + "\n")


if __name__ == "__main__":
    main()
