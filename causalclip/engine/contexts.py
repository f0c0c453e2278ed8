"""The words before the class names, and the prompts that trainers build for a CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompts import CoupledPrompts, IndependentPrompts, embed_words
from causalclip.clip.texts import ClassTokens, Position, class_tokens, readable
from causalclip.settings.constraints import integer

# Far above anything published (VPT learns up to 200 tokens, no released tower has more than 24
# blocks): a slip is named before it fills the memory. The loaded backbone sets the exact bounds.
TOKENS = integer(1, 1000)
DEPTH = integer(1, 100)
MAYBE_TOKENS = integer(0, 1000)  # of a tower that may have no prompts
MAYBE_DEPTH = integer(0, 100)


@dataclass(frozen=True)
class Context:
    """The words before the class names, before anything is learned."""

    n_ctx: int
    """Number of learned tokens, the first ones of the words."""
    words: str = ""
    """Where the tokens start; empty starts at random."""
    position: Position = "end"
    template: str = "{}."
    """Text after the words: the class name, perhaps with more words around it."""

    @classmethod
    def of_words(cls, settings: CfgNode, *, position: Position = "end") -> Context:
        """Return the context of CoOp: as many tokens as CTX_INIT has words, else N_CTX."""
        words = readable(settings.CTX_INIT)
        return cls(len(words.split()) or settings.N_CTX, words, position)

    def start(self, clip: CLIPModel) -> Tensor | None:
        """Return the embeddings (n_ctx, D) of the words; None for a random start.

        Raises:
            ValueError: words that have fewer tokens than `n_ctx`.
        """
        return embed_words(clip, self.words, self.n_ctx) if self.words and self.n_ctx else None

    def tokens(self, names: Sequence[str], clip: CLIPModel) -> ClassTokens:
        """Return the tokens (K, L) of K class names after these words.

        Raises:
            ValueError: fewer words than `n_ctx`, or a class name that is too long.
        """
        backbone = backbone_of(clip)
        return class_tokens(
            names,
            n_ctx=self.n_ctx,
            prefix=self.words,
            position=self.position,
            template=self.template,
            context_length=backbone.context_length,
            tokenizer=backbone.tokenizer,
        )


def coupled_prompts(clip: CLIPModel, context: Context, *, depth: int) -> CoupledPrompts:
    """Return MaPLe's prompts for a CLIP.

    Raises:
        ValueError: prompts deeper than a tower, no ViT, or fewer words than the context has.
    """
    text, vision = tower_widths(clip, text=depth, vision=depth)
    return CoupledPrompts(context.n_ctx, depth, text, vision, init=context.start(clip))


def independent_prompts(
    clip: CLIPModel, context: Context, *, text_depth: int, n_vision: int, vision_depth: int
) -> IndependentPrompts:
    """Return IVLP's prompts for a CLIP; a tower of 0 tokens and depth 0 has none.

    Raises:
        ValueError: prompts deeper than a tower or on one that takes none, tokens without depth or
            depth without tokens, or fewer words than the context has.
    """
    widths = tower_widths(clip, text=text_depth, vision=vision_depth)
    sizes = (context.n_ctx, n_vision, text_depth, vision_depth)
    return IndependentPrompts(*sizes, *widths, init=context.start(clip))


def tower_widths(clip: CLIPModel, *, text: int, vision: int) -> tuple[int, int]:
    """Return the widths of the text and the image tower, for prompts of these depths.

    Depth 0 is a tower without prompts, whose width is given as 0.

    Raises:
        ValueError: names the tower, its depth and what came.
    """
    backbone = backbone_of(clip)
    asked = (("text", text, backbone.text_tower), ("image", vision, backbone.image_tower))
    towers = [(name, depth, tower() if depth else None) for name, depth, tower in asked]
    for name, depth, tower in towers:
        if tower and depth > len(tower.blocks):
            raise ValueError(
                f"prompt depth must be at most {len(tower.blocks)}, the depth of the {name} tower, "
                f"got {depth}"
            )
    text_width, image_width = (tower.width if tower else 0 for _, _, tower in towers)
    return text_width, image_width
