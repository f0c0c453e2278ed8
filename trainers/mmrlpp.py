"""MMRLpp: MMRL++, MMRL with shared projections and tokens mixed over layers (arXiv 2505.10088)."""

from __future__ import annotations

from causalclip.clip.adapters import ComposedTokens
from causalclip.settings.constraints import integer, number
from causalclip.settings.search import Choice
from causalclip.settings.table import Setting
from causalclip.trainers.mmrl import MMRL

RANK = integer(1, 10_000)


class MMRLpp(MMRL):
    """MMRL's loss and prediction, with one weight per tower that projects the tokens of all layers.

    A layer's tokens are BETA times the learned tokens plus 1 - BETA times the output tokens of the
    layer before. CLIP's own projection, with a low-rank change, maps output tokens to features.
    """

    config_node = "MMRLPP"
    settings_table = {
        "BETA": Setting(
            0.9,
            number(0, 1),
            "Share of a layer's learned tokens; the rest comes from the layer before.",
        ),
        "RES_LORA_DIM": Setting(4, RANK, "Rank of each layer's change of the shared projection."),
        "PROJ_LORA_DIM": Setting(64, RANK, "Rank of the change of CLIP's image projection."),
        **MMRL.settings_table,
    }
    search_space = {**MMRL.search_space, "BETA": Choice((0.1, 0.3, 0.5, 0.7, 0.9))}

    def tokens(self, text_width: int, image_width: int) -> ComposedTokens:
        """Return the tokens, with a projection for each tower."""
        settings, visual = self.settings, self.clip.visual
        return ComposedTokens(
            settings.N_REP_TOKENS,
            settings.REP_DIM,
            settings.REP_LAYERS,
            text_width,
            visual.proj,
            rank=settings.RES_LORA_DIM,
            projection_rank=settings.PROJ_LORA_DIM,
            new_share=settings.BETA,
        )
