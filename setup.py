"""Distribution `causalclip`: maps the family's top-level folders into one import package.

`trainers/` and `datasets/` stay at the top level because that is where users of CoOp and MaPLe look
for them, and install as `causalclip.trainers` and `causalclip.datasets` because the bare names
collide with every other checkout of the family and with Hugging Face's `datasets`.
"""

from setuptools import setup

setup(
    packages=[
        "causalclip",
        "causalclip.assets",
        "causalclip.configs",
        "causalclip.datasets",
        "causalclip.trainers",
    ],
    package_dir={
        "causalclip": "causalclip",
        "causalclip.configs": "configs",
        "causalclip.datasets": "datasets",
        "causalclip.trainers": "trainers",
    },
    package_data={
        "causalclip.assets": ["*.safetensors", "*.md", "*.json"],
        "causalclip.configs": ["**/*.yaml"],
    },
)
