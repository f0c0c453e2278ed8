"""Low-rank changes of the attention weights of both towers (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.interface import Tower, backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import PromptSet

ATTENTION = ("attn.in_proj_weight", "attn.qkv.weight")
"""Names of a block's query, key and value weights (3 D, D): OpenAI's and open_clip's, timm's."""
QKV = ("q", "k", "v")


class LowRankWeights(nn.Module):
    """Changes `scale` B A of the attention weights of every block of some towers."""

    def __init__(
        self,
        clip: CLIPModel,
        *,
        towers: Sequence[str] = ("text", "image"),
        parts: Sequence[str] = QKV,
        rank: int = 2,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        """Start without a change: A is initialised as in nn.Linear, B is zero.

        Args:
            clip: the model that the changes fit; it is not modified.
            towers: text, image, or both.
            parts: the weights that change, some of q, k, v.
            rank: number of rows of A.
            scale: factor of the change.
            dropout: probability of dropping a column of A in a training step.

        Raises:
            ValueError: a tower whose blocks have none of the ATTENTION weights.
        """
        super().__init__()
        self.parts, self.scale, self.dropout = [QKV.index(part) for part in parts], scale, dropout
        self.names: dict[str, list[str]] = {}
        for kind in towers:
            tower = getattr(backbone_of(clip), f"{kind}_tower")()
            self.names[kind] = names = list(attention_names(clip, tower, kind))
            for letter, shape in (
                ("A", (len(names), len(parts), rank, tower.width)),
                ("B", (len(names), len(parts), tower.width, rank)),
            ):
                bound = 1 / math.sqrt(tower.width) if letter == "A" else 0.0
                start = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{kind}_{letter}", nn.Parameter(start))

    def forward(self) -> PromptSet:
        """Return the changes (3 D, D), by the names of the weights."""
        changes = {}
        for kind, names in self.names.items():
            a, b = self.get_parameter(f"{kind}_A"), self.get_parameter(f"{kind}_B")
            kept = F.dropout(torch.ones_like(a[:, :, :1]), self.dropout, self.training)
            products = self.scale * b @ (a * kept)  # (blocks, parts, D, D)
            by_part = dict(zip(self.parts, products.unbind(1), strict=True))
            zero = torch.zeros_like(products[:, 0])
            whole = torch.stack([by_part.get(part, zero) for part in range(len(QKV))], dim=1)
            changes |= dict(zip(names, whole.flatten(1, 2), strict=True))
        return PromptSet(weights=changes)


def attention_names(clip: nn.Module, tower: Tower, kind: str) -> Iterator[str]:
    """Yield the name of the attention weight (3 D, D) of each block of a tower.

    Raises:
        ValueError: a block without one.
    """
    names = {id(parameter): name for name, parameter in clip.named_parameters()}
    for block in tower.blocks:
        own = dict(block.named_parameters())
        found = next((own[name] for name in ATTENTION if name in own), None)
        if found is None or tuple(found.shape) != (3 * tower.width, tower.width):
            raise ValueError(
                f"low-rank weights need {' or '.join(ATTENTION)} in each block, the {kind} tower "
                "of this CLIP has neither"
            )
        yield names[id(found)]


@torch.no_grad()
def merged_state(clip: nn.Module, prompts: PromptSet) -> dict[str, Tensor]:
    """Return the state dict of a CLIP with the weight changes of a prompt set merged into it."""
    changes = prompts.weights
    return {
        name: (value + changes[name].to(value) if name in changes else value).detach().cpu().clone()
        for name, value in clip.state_dict().items()
    }
