"""CDC's losses: trusted cross-entropy (with TMC's optional KL term), diversity and consistency.

Also measures of how much the members of an ensemble differ, in their texts and in their errors.

Every part has a switch; docs/method.md states which parts the paper has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from causalclip.cdc.config import CDCConfig
from causalclip.cdc.evidence import FUSIONS


def trusted_cross_entropy(evidence: Tensor, labels: Tensor) -> Tensor:
    """Return the batch mean of the expected cross-entropy under the evidence's Dirichlet.

        E[-log p_y] = digamma(S) - digamma(alpha_y),  alpha = e + 1,  S = sum_k alpha_k

    `evidence` (..., K), `labels` (...) or a shape that broadcasts to it; returns a scalar (TMC,
    section 3.3). Use at least fp32.
    """
    alpha = evidence + 1
    alpha_y = alpha.gather(-1, _index_of(labels, evidence)).squeeze(-1)
    return (torch.digamma(alpha.sum(-1)) - torch.digamma(alpha_y)).mean()


def dirichlet_kl(evidence: Tensor, labels: Tensor) -> Tensor:
    """Return the batch mean of a penalty on evidence for wrong classes (TMC, section 3.3).

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
    """Return L_de, the mean cosine between templates' features of the same class or image.

        mean over m != m' and over all x of cos(f^m_x, f^m'_x)

    `features` (M, ..., D), such as text features (M, K, D) or image features (M, B, D); a scalar in
    [-1 / (M - 1), 1], 0 for one template. The form is ours, after the paper's word "diversity".
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
    """Return the mean cosine of two templates' features (M, K, D) of the same classes, (M, M)."""
    unit = F.normalize(features.float(), dim=-1)
    return torch.einsum("mke,nke->mn", unit, unit) / unit.shape[1]


def residual_directions(features: Tensor, reference: Tensor) -> Tensor:
    """Return unit features (..., D) minus a unit reference of a shape that broadcasts to them.

    This is the difference of texts t^m from the hand-crafted t^0, or of images from CLIP's own.
    """
    return F.normalize(features, dim=-1) - F.normalize(reference, dim=-1)


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """Return L_con, the mean of 1 - cos(f^m_x, f^0_x) over templates and classes or images.

    `features` (M, K, D) of the learned templates with `reference` (K, D) of the frozen,
    hand-crafted one, or (M, K, D) of one anchor per template; or image features (B, M, D) with the
    frozen tower's for the same views. The form is ours, after the paper's word "consistency".
    """
    return (1 - F.cosine_similarity(features, reference, dim=-1)).mean()


def classification_loss(
    config: CDCConfig, logits: Tensor, evidence: Tensor, labels: Tensor, *, epoch: int = 1
) -> Tensor:
    """Return L_cls of M templates and, with `fused_loss`, of their fused answer; a scalar.

    Logits, scale z^m T^m', and their evidence are (B, M, K), labels (B,). The epoch, for the
    annealing of the KL term, counts from 1, as in TMC's code.
    """
    fusion, trusted = FUSIONS[config.fusion], config.loss == "trusted"
    answers = evidence if trusted else logits.log_softmax(-1)
    if config.fused_loss:
        fused = (fusion.scores if trusted else fusion.log_probabilities)(logits, evidence)
        answers = torch.cat([answers, fused.unsqueeze(-2)], dim=-2)  # (B, M + 1, K)
    targets = labels.unsqueeze(-1).expand(answers.shape[:-1])
    if trusted:
        mean = trusted_cross_entropy(answers, targets)
    else:
        mean = F.nll_loss(answers.flatten(0, -2), targets.flatten())
    if config.kl_weight:  # with the trusted loss only; annealed as in TMC, section 3.3
        share = min(1.0, epoch / config.kl_epochs) if config.kl_epochs else 1.0
        mean = mean + config.kl_weight * share * dirichlet_kl(answers, targets)
    return mean * answers.shape[-2] if config.loss_reduction == "sum" else mean


def pair_diversity(correct: Tensor) -> dict[str, float]:
    """Return diversity measures of M members, each the mean over the M (M - 1) / 2 pairs.

    Kuncheva and Whitaker, "Measures of Diversity in Classifier Ensembles", Machine Learning 51
    (2003).

    With a, b, c, d the counts of images that both, only the first, only the second, none get right:

        disagreement       (b + c) / N                    0 for equal members
        q                  (a d - b c) / (a d + b c)      1 for equal ones, 0 for independent ones
        error_correlation  of the errors as 0 and 1       1 for equal ones, 0 for independent ones

    `correct` (N, M) shows which images each member gets right. A pair for which q or the
    correlation is 0 / 0 is left out; NaN if all are.
    """
    right, n = correct.double(), len(correct)
    i, j = torch.triu_indices(right.shape[1], right.shape[1], offset=1)
    both, first, second = (right.T @ right)[i, j], right.sum(0)[i], right.sum(0)[j]
    b, c = first - both, second - both
    d = n - both - b - c
    q = (both * d - b * c) / (both * d + b * c)
    spread = (first * (n - first) * second * (n - second)).sqrt()
    correlation = (both * d - b * c) / spread
    measures = {"disagreement": (b + c) / n, "q": q, "error_correlation": correlation}
    return {name: values.nanmean().item() for name, values in measures.items()}


def regularisers(
    config: CDCConfig, text: Tensor, image: Tensor, *, handcrafted: Tensor, frozen: Tensor | None
) -> Tensor:
    """Return the weighted L_de and L_con, a scalar; parts of weight 0 are left out.

    `text` are class features (M, K, E), `handcrafted` is t^0 (K, E) or one anchor per template
    (M, K, E). `image` (B, M, E) are features of view m under template m, and `frozen` those of the
    frozen tower, or None unless `compares_images`.
    """
    beta_image, gamma_image = config.image_weights
    text_parts, image_parts = text, image
    if config.diversity_of == "residuals":
        text_parts = residual_directions(text, handcrafted)
        if frozen is not None:
            image_parts = residual_directions(image, frozen)
    total = text.new_zeros((), dtype=torch.float32)
    if config.beta:
        total = total + config.beta * diversity_loss(text_parts)
    if beta_image:
        total = total + beta_image * diversity_loss(image_parts.transpose(0, 1))
    if config.gamma:
        total = total + config.gamma * consistency_loss(text, handcrafted)
    if gamma_image and frozen is not None:
        total = total + gamma_image * consistency_loss(image, frozen)
    return total


def _index_of(labels: Tensor, evidence: Tensor) -> Tensor:
    """Return labels as an index (..., 1) into the class axis, broadcast to the evidence."""
    return labels.long().broadcast_to(evidence.shape[:-1]).unsqueeze(-1)
