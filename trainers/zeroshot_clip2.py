"""ZeroshotCLIP2: CLIP with an ensemble of hand-crafted templates (arXiv 2103.00020)."""

from __future__ import annotations

from causalclip.clip.templates import IMAGENET_TEMPLATES_SELECT, template_for
from causalclip.trainers.zeroshot_clip import ZeroshotCLIP


class ZeroshotCLIP2(ZeroshotCLIP):
    """Text features averaged over CLIP's seven ImageNet templates and the data set's own."""

    config_node = "ZEROSHOTCLIP2"

    def templates(self) -> list[str]:
        """Seven, and the data set's own as an eighth."""
        own = self.settings.TEMPLATE or template_for(self.cfg.DATASET.NAME)
        # As published: ImageNet keeps the seven alone.
        return [*IMAGENET_TEMPLATES_SELECT, *([] if self.cfg.DATASET.NAME == "ImageNet" else [own])]
