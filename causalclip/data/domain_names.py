"""The domains of a data set, one a line: what --source-domains and --target-domains can name.

python scripts/domains.py --root DATA configs/datasets/causal_shapes.yaml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import causalclip.datasets
from causalclip.data.listing import require_root, subfolders


def domains_of(config_file: str, root: str) -> list[str]:
    """The data set's own list; where it has none, the folders below its folder."""
    from causalclip import plugin  # mends and registers, which an import of this module must not

    # isort: split
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY

    plugin.register_package(causalclip.datasets)
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.merge_from_file(config_file)
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if dataset.domains:
        return list(dataset.domains)
    if not hasattr(dataset, "folders"):
        raise ValueError(f"{cfg.DATASET.NAME} has no domains")
    folders = dataset.folders or (cfg.DATASET.PATH,)
    errors = []
    for folder in folders:
        try:
            return subfolders(require_root(root, folder))
        except FileNotFoundError as error:
            errors.append(error)
    raise errors[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the domains; 2 for a data set that has none or is not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config_file", help="configuration of the data set")
    parser.add_argument("--root", required=True, help="folder of the data sets")
    args = parser.parse_args(argv)
    try:
        print("\n".join(domains_of(args.config_file, args.root)))
    except (ValueError, OSError) as error:
        print(f"domains.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
