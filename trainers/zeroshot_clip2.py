"""ZeroshotCLIP2: CLIP with an ensemble of hand-crafted templates (arXiv 2103.00020)."""

from __future__ import annotations

from causalclip.clip.templates import IMAGENET_TEMPLATES_SELECT
from causalclip.data.templates import dataset_template, given_template
from causalclip.trainers.zeroshot_clip import ZeroshotCLIP


class ZeroshotCLIP2(ZeroshotCLIP):
    """Text features averaged over CLIP's seven ImageNet templates and the data set's own."""

    config_node = "ZEROSHOTCLIP2"

    def templates(self) -> list[str]:
        """Seven, and the data set's own as an eighth."""
        own = self.settings.TEMPLATE or given_template(self.cfg)
        if not own and self.cfg.DATASET.NAME == "ImageNet":  # as published: the seven alone
            return list(IMAGENET_TEMPLATES_SELECT)
        return [*IMAGENET_TEMPLATES_SELECT, own or dataset_template(self.cfg)]
