"""What is known about every data set, one row each; imports nothing but the standard library."""

from __future__ import annotations

from causalclip.data.catalogue.domain_sets import DOMAINBED
from causalclip.data.catalogue.drawn import BUNDLED
from causalclip.data.catalogue.facts import DEFAULT_TEMPLATE, Download, Facts
from causalclip.data.catalogue.imagenet import IMAGENET
from causalclip.data.catalogue.lookup import CATALOGUE, facts_of, sets_of
from causalclip.data.catalogue.recognition import RECOGNITION

__all__ = [
    "BUNDLED",
    "CATALOGUE",
    "DEFAULT_TEMPLATE",
    "DOMAINBED",
    "IMAGENET",
    "RECOGNITION",
    "Download",
    "Facts",
    "facts_of",
    "sets_of",
]
