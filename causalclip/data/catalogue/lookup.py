"""Finds rows of the catalogue: by name, by configuration, by protocol."""

from __future__ import annotations

from causalclip.data.catalogue.domain_sets import DOMAINBED
from causalclip.data.catalogue.drawn import BUNDLED
from causalclip.data.catalogue.facts import Facts
from causalclip.data.catalogue.imagenet import IMAGENET
from causalclip.data.catalogue.recognition import RECOGNITION

CATALOGUE = {
    facts.name: facts for facts in (IMAGENET[0], *RECOGNITION, *IMAGENET[1:], *DOMAINBED, *BUNDLED)
}


def facts_of(name: str) -> Facts:
    """Return the facts of a set by its registry name, whatever the case, or by its configuration.

    Raises:
        ValueError: for another name; it lists the known ones.
    """
    for facts in CATALOGUE.values():
        if name.lower() in (facts.name.lower(), facts.config):
            return facts
    raise ValueError(f"the data set must be one of {', '.join(CATALOGUE)}, got {name!r}")


def sets_of(protocol: str) -> list[str]:
    """Return the configurations of the sets that a published protocol tests on, in its order.

    Raises:
        ValueError: for a protocol that no set belongs to; it lists the known ones.
    """
    found = [facts.config for facts in CATALOGUE.values() if protocol in facts.protocols]
    if not found:
        known = dict.fromkeys(name for facts in CATALOGUE.values() for name in facts.protocols)
        raise ValueError(f"the protocol must be one of {', '.join(known)}, got {protocol!r}")
    return found
