"""Distribution `causalclip`: one import package, three folders of which lie at the top level.

`trainers/`, `datasets/` and `configs/` stay where users of CoOp and MaPLe look for them;
`causalclip/` holds links to them, so that an import path is a file path. Where a checkout has no
links (CONTRIBUTING.md), an ordinary install maps the folders instead.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
LINKED = ("trainers", "datasets", "configs")
UNLINKED = [name for name in LINKED if not (HERE / "causalclip" / name).is_dir()]

setup(
    packages=[
        *find_packages(include=["causalclip", "causalclip.*"]),
        *(f"causalclip.{name}" for name in UNLINKED),
    ],
    package_dir={f"causalclip.{name}": name for name in UNLINKED},
    package_data={
        "causalclip": ["py.typed"],
        "causalclip.clip.assets": ["*.safetensors", "*.sha256", "*.md", "*.json"],
        "causalclip.configs": ["**/*.yaml"],
        "causalclip.page": ["templates/*"],
        "causalclip.report": ["*.yaml"],
    },
)
