"""The protocols that tables are made of."""

from __future__ import annotations

PROTOCOLS = {
    "base2new": "Base-to-novel",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "fewshot": "Few-shot",
    "lodo": "Leave one domain out",
    "openclass": "Open class",
}
VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
