"""ProGrad: CoOp that takes no step against CLIP's own knowledge (arXiv 2205.14865)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.prompts import TextPrompts
from causalclip.engine.contexts import TOKENS, Context, handcrafted_features
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import boolean, number
from causalclip.settings.table import COMMON, TEMPLATE, Setting


def projected(gradient: Tensor, general: Tensor, lam: float) -> Tensor:
    """Return the gradient without `lam` times its part against the general one (section 3.2).

        g - lam min(0, <g, u>) u,   u = general / |general|

    `general` is the gradient of the distance from zero-shot CLIP, of the same shape (...). If it is
    zero, nothing changes. With `lam` 0 this is CoOp.
    """
    unit = F.normalize(general.flatten(), dim=0)
    against = (gradient.flatten() @ unit).clamp(max=0)
    return gradient - lam * against * unit.view_as(gradient)


class ProGrad(PromptTrainer):
    """L = L_ce, with its gradient projected if it conflicts with that of KL(zero-shot || learned).

    The published keys are COOP.N_CTX, COOP.CTX_INIT, LOSS.LAMBDA and LOSS.T.
    """

    config_node = "PROGRAD"
    image_tower_untouched = True
    # As CoOp's, but the class name comes last, after the learned words.
    code_templates = {
        "OxfordPets": "a type of pet, a photo of a {}.",
        "OxfordFlowers": "a type of flower, a photo of a {}.",
        "FGVCAircraft": "a type of aircraft, a photo of a {}.",
        "DescribableTextures": "a texture of {}.",
        "EuroSAT": "a centered satellite photo of {}.",
        "Food101": "a type of food, a photo of {}.",
    }
    several_processes = False  # the projection needs the gradient of the whole batch
    settings_table = {
        "N_CTX": Setting(16, TOKENS, "Number of learned context words."),
        "CTX_INIT": Setting(
            True, boolean(), "Start from zeros and the template's words; False: at random."
        ),
        "LAMBDA": Setting(1.0, number(0), "Share of the conflicting gradient to remove."),
        "T": Setting(1.0, number(0, open_low=True), "Temperature of the distance from CLIP."),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }

    def words(self) -> str:
        """Return the first words of the context: the template up to the class name, or none."""
        return self.template().partition("{}")[0].strip() if self.settings.CTX_INIT else ""

    def padding(self) -> int:
        """Return the number of learned tokens before the words.

        Raises:
            ValueError: more words than N_CTX.
        """
        words, n_ctx = self.words(), self.settings.N_CTX
        if (count := len(words.split())) > n_ctx:
            raise ValueError(
                f"TRAINER.PROGRAD.N_CTX must be at least {count}, the words of {words!r} that the "
                f"context starts from, got {n_ctx}"
            )
        return n_ctx - count

    def context(self) -> Context:
        """Return N_CTX tokens that end in the words of the template."""
        if not (words := self.words()):
            return Context(self.settings.N_CTX)
        return Context(self.settings.N_CTX, " ".join(["X"] * self.padding() + [words]))

    def build_prompts(self) -> nn.Module:
        """Return one context for all classes, with zeros before its words as published."""
        context, width = self.context(), self.backbone.text_width
        self.handcrafted = handcrafted_features(self, [self.template()])
        if (start := context.start(self.clip)) is not None:
            start[: self.padding()] = 0
        return TextPrompts(context.n_ctx, width, init=start)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy, whose gradient for the context is `projected`, and logits."""
        ctx = self.model().text[0].clone()  # a new tensor, so that its hook is for this step only
        prompts = PromptSet(text=(ctx,))
        image_features = self.image_features(images, prompts)
        logits = self.backbone.classify(image_features, self.text_features(prompts))
        distance = self.distance(logits, self.backbone.classify(image_features, self.handcrafted))
        # Scaled under amp against underflow; `projected` uses the direction only.
        scaled = self.scaler.scale(distance)
        (general,) = torch.autograd.grad(scaled, ctx, retain_graph=True)

        ctx.register_hook(lambda gradient: projected(gradient, general, self.settings.LAMBDA))
        return F.cross_entropy(logits, labels), logits

    def distance(self, logits: Tensor, zero_shot: Tensor) -> Tensor:
        """Return T^2 KL(zero-shot || learned) of logits (B, K), up to a constant (section 3.2)."""
        temperature = self.settings.T
        targets = (zero_shot / temperature).softmax(-1)
        return temperature**2 * F.cross_entropy(logits / temperature, targets)
