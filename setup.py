"""The distribution `causalclip`: one import package, with four of its folders at the top level.

`trainers/`, `datasets/` and `configs/` are where users of CoOp and MaPLe look for them.
`minidassl/` provides the module `dassl` if Dassl is not installed. `causalclip/` contains links to
the four folders, so that an import path is a file path. If a checkout has no links
(CONTRIBUTING.md), an ordinary install maps the folders instead.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
LINKED = ("trainers", "datasets", "configs", "minidassl")
UNLINKED = [name for name in LINKED if not (HERE / "causalclip" / name).is_dir()]

setup(
    packages=[
        *find_packages(include=["causalclip", "causalclip.*"]),
        *(f"causalclip.{name}" for name in UNLINKED),
        *(f"causalclip.minidassl.{name}" for name in find_packages("minidassl")),
    ],
    package_dir={f"causalclip.{name}": name for name in UNLINKED},
    package_data={
        "causalclip": ["py.typed"],
        "causalclip.clip": ["assets/*"],
        "causalclip.data": ["*.yaml"],
        "causalclip.configs": ["**/*.yaml", "descriptions/*.json"],
        "causalclip.icm": ["*.json"],
        "causalclip.minidassl.dassl.config": ["defaults.yaml"],
        "causalclip.page": ["templates/*"],
        "causalclip.plots": ["*.mplstyle"],
        "causalclip.ablation": ["*.yaml"],
        "causalclip.report": ["*.yaml"],
    },
)
