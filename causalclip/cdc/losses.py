"""CDC's losses: trusted cross-entropy (with TMC's optional KL term), diversity and consistency."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F


def trusted_cross_entropy(evidence: Tensor, labels: Tensor) -> Tensor:
    """Expected cross-entropy under the Dirichlet of the evidence, averaged over the batch.

        E[-log p_y] = digamma(S) - digamma(alpha_y),  alpha = e + 1,  S = sum_k alpha_k

    `evidence` (..., K), `labels` (...) or a shape that broadcasts to it; returns a scalar (TMC,
    section 3.3). Several templates and their fused opinion stacked in one axis are averaged alike.
    Use at least fp32.
    """
    alpha = evidence + 1
    alpha_y = alpha.gather(-1, _index_of(labels, evidence)).squeeze(-1)
    return (torch.digamma(alpha.sum(-1)) - torch.digamma(alpha_y)).mean()


def dirichlet_kl(evidence: Tensor, labels: Tensor) -> Tensor:
    """Penalty on evidence for the wrong classes, averaged over the batch (TMC, section 3.3).

        KL( Dir(y + (1 - y) alpha) || Dir(1) ),  y the one-hot label

    Shapes as in `trusted_cross_entropy`. On CLIP-scale evidence it is hundreds of times the
    cross-entropy, so anneal its weight from zero, if it is used at all.
    """
    wrong = evidence.scatter(-1, _index_of(labels, evidence), 0.0)
    # float64: the divergence is a small difference of lgamma values as large as the evidence.
    alpha = wrong.double() + 1
    divergence = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    return divergence.mean().to(evidence.dtype)


def diversity_loss(features: Tensor) -> Tensor:
    """L_de: mean cosine between different templates' features of the same thing.

        mean over m != m' and over all x of cos(f^m_x, f^m'_x)

    `features` (M, ..., D), such as text features (M, K, D) or image features (M, B, D); a scalar in
    [-1 / (M - 1), 1]. With one template there is no pair and the loss is 0. The form is ours, read
    from the paper's word "diversity".
    """
    n_templates = features.shape[0]
    if n_templates == 1:
        return features.new_zeros(())
    unit = F.normalize(features, dim=-1)
    # The sum over pairs is |sum_m f^m|^2 without its diagonal: no M x M matrix is needed.
    all_pairs = unit.sum(0).square().sum(-1)
    diagonal = unit.square().sum(-1).sum(0)
    return ((all_pairs - diagonal) / (n_templates * (n_templates - 1))).mean()


def template_cosines(features: Tensor) -> Tensor:
    """Mean cosine of two templates' features (M, K, D) of the same classes, (M, M)."""
    unit = F.normalize(features.float(), dim=-1)
    return torch.einsum("mke,nke->mn", unit, unit) / unit.shape[1]


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """L_con: mean of 1 - cos(f^m_x, f^0_x) over templates and what they describe.

    `features` (M, K, D) of the learned templates with `reference` (K, D) of the frozen,
    hand-crafted one; or image features (B, M, D) with those of the frozen tower for the same views
    (B, M, D). The form is ours, read from the paper's word "consistency".
    """
    return (1 - F.cosine_similarity(features, reference, dim=-1)).mean()


def _index_of(labels: Tensor, evidence: Tensor) -> Tensor:
    """Labels as an index into the class axis, (..., 1), broadcast over extra axes of evidence."""
    return labels.long().broadcast_to(evidence.shape[:-1]).unsqueeze(-1)
