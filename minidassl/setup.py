"""Distribution `dassl`: the embedded default toolkit, a stand-in for Dassl 0.6.3."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    name="dassl",
    version="0.6.3+mini",
    description="A small implementation of the Dassl surface that prompt learning uses",
    packages=find_packages(include=["dassl", "dassl.*"]),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.19",
        "yacs>=0.1.8",
        "numpy>=1.26",
        "scikit-learn>=1.5",
        "tabulate>=0.9",
        "tqdm>=4.66",
        "gdown>=5.1",
        "Pillow>=12.3",
    ],
)
