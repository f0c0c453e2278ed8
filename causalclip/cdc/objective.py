"""What CDC minimises: the opinions that are scored, by which loss, and the terms beside it.

Every part has a switch; which of them the paper has is said in docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.cdc.evidence import fuse, probabilities
from causalclip.cdc.losses import (
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    trusted_cross_entropy,
)

Loss = Literal["trusted", "cross_entropy"]
Reduction = Literal["mean", "sum"]
Fusion = Literal["discounted", "dempster", "averaging", "probabilities", "logits"]

WITHOUT_EVIDENCE = ("probabilities", "logits")  # fusions whose result is no opinion


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised, with the weight of each part.

    L = L_cls + beta L_de(text) + beta_image L_de(image)
        + gamma L_con(text) + gamma_image L_con(image)
    """

    loss: Loss = "trusted"
    """trusted: TMC's, of Dirichlet opinions; cross_entropy: plain, of each template's softmax."""
    reduction: Reduction = "mean"
    """Over the opinions: their mean, or TMC's sum, M + 1 times as large a step."""
    fused: bool = True
    """Whether the fused answer is scored beside the M templates'."""
    fusion: Fusion = "discounted"
    """How it is fused; the discount is fitted after training, so `discounted` trains Dempster's."""
    kl_weight: float = 0.0
    kl_epochs: int = 0
    beta: float = 0.0
    beta_image: float = 0.0
    gamma: float = 0.0
    gamma_image: float = 0.0

    def classification(
        self, logits: Tensor, evidence: Tensor, labels: Tensor, *, epoch: int = 1
    ) -> Tensor:
        """L_cls of M templates and, with `fused`, of what they say together; a scalar.

        Args:
            logits: (B, M, K), scale z^m T^m'.
            evidence: (B, M, K), of the logits.
            labels: (B,) int64.
            epoch: counted from 1, for the annealing of the KL term.

        Raises:
            ValueError: trusted with a fused answer that is no opinion.
        """
        of_opinions = self._trusted if self.loss == "trusted" else self._plain
        mean = of_opinions(logits, evidence, labels, epoch)
        opinions = logits.shape[-2] + self.fused
        return mean * opinions if self.reduction == "sum" else mean

    def _trusted(self, logits: Tensor, evidence: Tensor, labels: Tensor, epoch: int) -> Tensor:
        if self.fused and self.fusion in WITHOUT_EVIDENCE:
            raise ValueError(
                f"the trusted loss needs a fused opinion, and {self.fusion} gives none"
            )
        if self.fused:
            together = fused_scores(logits, evidence, self.fusion).unsqueeze(-2)
            evidence = torch.cat([evidence, together], dim=-2)  # (B, M + 1, K)
        targets = labels.unsqueeze(-1).expand(evidence.shape[:-1])
        loss = trusted_cross_entropy(evidence, targets)
        if self.kl_weight:
            weight = self.kl_weight * annealing(epoch, self.kl_epochs)
            loss = loss + weight * dirichlet_kl(evidence, targets)
        return loss

    def _plain(self, logits: Tensor, evidence: Tensor, labels: Tensor, epoch: int) -> Tensor:
        answers = logits.log_softmax(-1)
        if self.fused:
            together = fused_log_probabilities(logits, evidence, self.fusion).unsqueeze(-2)
            answers = torch.cat([answers, together], dim=-2)
        targets = labels.unsqueeze(-1).expand(answers.shape[:-1])
        return F.nll_loss(answers.flatten(0, -2), targets.flatten())

    def regularisers(
        self, text: Tensor, image: Tensor, *, handcrafted: Tensor, frozen: Tensor | None
    ) -> Tensor:
        """The weighted L_de and L_con; parts of weight 0 are not computed.

        Args:
            text: (M, K, E) class features of the templates.
            image: (B, M, E) features of view m under template m.
            handcrafted: (K, E), t^0.
            frozen: (B, M, E), the same views seen by the frozen tower; None where `gamma_image`
                is 0.
        """
        total = text.new_zeros((), dtype=torch.float32)
        if self.beta:
            total = total + self.beta * diversity_loss(text)
        if self.beta_image:
            total = total + self.beta_image * diversity_loss(image.transpose(0, 1))
        if self.gamma:
            total = total + self.gamma * consistency_loss(text, handcrafted)
        if self.gamma_image and frozen is not None:
            total = total + self.gamma_image * consistency_loss(image, frozen)
        return total


def annealing(epoch: int, epochs: int) -> float:
    """TMC's factor of the KL term: min(1, epoch / epochs), epoch counted from 1; 1 for 0 epochs.

    (TMC, section 3.3; the published code counts from 1.)
    """
    return min(1.0, epoch / epochs) if epochs else 1.0


def fused_scores(logits: Tensor, evidence: Tensor, fusion: Fusion) -> Tensor:
    """What M templates (B, M, K) say together (B, K): evidence, probabilities or logits.

    All of them grow with how much a class is believed in; the discount is not applied.
    """
    if fusion == "logits":
        return logits.mean(-2)
    if fusion == "probabilities":
        return logits.softmax(-1).mean(-2)
    return fuse(evidence, rule="averaging" if fusion == "averaging" else "dempster")


def fused_log_probabilities(logits: Tensor, evidence: Tensor, fusion: Fusion) -> Tensor:
    """Logarithm of the class probabilities (B, K) of what M templates (B, M, K) say together."""
    if fusion == "logits":
        return logits.mean(-2).log_softmax(-1)
    if fusion == "probabilities":  # of the softmaxes; in logarithms, where none underflows
        return logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])
    return probabilities(fused_scores(logits, evidence, fusion)).log()


def objective_of(settings: Mapping[str, Any]) -> Objective:
    """The objective that a method's settings describe, by their names."""
    prompted = settings["VISION"] != "none"  # else the image features are CLIP's own
    of_image = {
        key: settings[key] if settings[f"{key}_IMAGE"] is None else settings[f"{key}_IMAGE"]
        for key in ("BETA", "GAMMA")
    }
    return Objective(
        loss=settings["LOSS"],
        reduction=settings["LOSS_REDUCTION"],
        fused=settings["FUSED_LOSS"],
        fusion=settings["FUSION"],
        kl_weight=settings["KL_WEIGHT"],
        kl_epochs=settings["KL_EPOCHS"],
        beta=settings["BETA"],
        beta_image=of_image["BETA"] if prompted else 0.0,
        gamma=settings["GAMMA"],
        gamma_image=of_image["GAMMA"] if prompted else 0.0,
    )
