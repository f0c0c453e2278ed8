"""CDC: decoupled semantic templates, each classified on its own, fused by uncertainty.

Zhang, Li, Liu, Qiang, "Rethinking Misalignment in Vision-Language Model Adaptation from a Causal
Perspective", NeurIPS 2024, arXiv 2410.12816. What the paper does not state is ours and marked so.

Every part has a switch. Rows of an ablation; `+` goes on from the row above:

    the method                            the defaults, chosen as docs/recipes.md says
    without L_con                         GAMMA 0; on one side GAMMA_IMAGE 0
    augmentation set 1                    VIEWS ['flip_crop', 'color_jitter', 'gray_blur',
                                          'perspective_erasing']
    augmentation set 2                    the same and CROP_ALL_VIEWS True
    the mean of the opinions' losses      LOSS_REDUCTION mean
    plain cross-entropy a template        LOSS cross_entropy, FUSED_LOSS False; sum or mean
    MaPLe's coupled prompts               VISION coupled
    multiple templates alone              LOSS cross_entropy, FUSED_LOSS False, FUSION logits,
                                          GAMMA 0, BETA 0
      + one template: IVLP's model        INIT_NOISE 0, N_TEMPLATES 1
      + MaPLe, to the digit               VISION coupled, N_CTX as MaPLe's
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from dassl.data.transforms import build_transform
from torch import Tensor, nn
from yacs.config import CfgNode

from causalclip.cdc.evidence import EvidenceKind, conflict, evidence_from_logits, fit_discount
from causalclip.cdc.exclusions import excluded
from causalclip.cdc.losses import template_cosines
from causalclip.cdc.objective import Fusion, Loss, Reduction, fused_scores, objective_of
from causalclip.cdc.readings import fused, of_evidence, of_logits
from causalclip.cdc.views import AS_CONFIGURED, FAMILIES, family_view
from causalclip.clip.prompt_set import (
    PromptSet,
    encode_image_sets,
    encode_image_sets_twice,
    encode_text_sets,
)
from causalclip.clip.prompts import DecoupledPrompts, TextPrompts
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.feature_cache import batches
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.prompt_trainer import (
    DEPTH,
    TOKENS,
    Context,
    PromptTrainer,
    coupled_prompts,
    independent_prompts,
)
from causalclip.engine.settings import Either, Flag, ListOf, Maybe, Number, OneOf, Text, Whole

PROJECTIONS = ("proj", "compound_prompt_projections")  # of CoupledPrompts, text to image


class CDC(PromptTrainer):
    """M templates, one semantic each: L = L_t-ce + BETA L_de + GAMMA L_con, fused at the end.

    [paper] is the paper's abstract, [second-hand] what others report of its tables and captions,
    [TMC] the trusted multi-view classification it builds on; the rest is ours.
    """

    config_node = "CDC"
    softmax = False  # calibrated by its own discount
    defaults = {
        "N_TEMPLATES": 4,  # [second-hand] M of the per-semantic table
        "N_CTX": 4,
        "CTX_INIT": "a photo of a",
        "PROMPT_DEPTH": 9,
        # [ours] independent: IVLP's deep prompts in both encoders; coupled: MaPLe's; none: text
        "VISION": "independent",
        "SHARE_PROJECTIONS": True,  # [ours] one text-to-image projection a depth for all templates
        "LEARN": "all",  # [ours]; [second-hand] tokens alone: the projections stay as they start
        # [ours] Equal templates would give L_de no gradient. A token embedding has a standard
        # deviation of about 0.02 itself, so absolute noise drowns the words that are the start;
        # relative noise is in units of what it disturbs.
        "INIT_NOISE": 0.1,
        "NOISE_SCALE": "relative",  # relative | absolute
        # [second-hand] a family of augmentations a template, such as flip_crop, color_jitter,
        # gray_blur and perspective_erasing [ours]; as_configured: its own draw of INPUT.TRANSFORMS,
        # which did as well on digits and better on photographs
        "VIEWS": [AS_CONFIGURED],
        "CROP_ALL_VIEWS": False,  # [second-hand] the second augmentation set; False: the first
        "EVIDENCE": "exp",  # [ours] exp | relu; softplus is [TMC]'s
        # [ours] what a logit has to exceed to be evidence: the mean of this image's logits under
        # the template, or the training images' mean zero-shot logit
        "EVIDENCE_OFFSET": "image",  # image | training
        "LOSS": "trusted",  # [paper], its form [TMC]'s; cross_entropy: plain, of softmaxes
        # [TMC] over the opinions; the mean [ours] would be M + 1 times as small a step
        "LOSS_REDUCTION": "sum",
        "FUSED_LOSS": True,  # [TMC] whether the fused answer is scored beside the templates'
        "KL_WEIGHT": 0.0,  # [TMC] has 1; at CLIP's scale the term would dominate
        "KL_EPOCHS": 0,  # [TMC] the weight grows as min(1, epoch / KL_EPOCHS); 0: constant
        # dempster is [TMC]'s; [ours] discounted | averaging | probabilities | logits (their means)
        "FUSION": "discounted",
        # [ours] eta of `discounted`: None or geometric (1/M), a number in [1/M, 1], or fit: fitted
        # on the validation split
        "DISCOUNT": None,
        "BETA": 0.1,  # [ours] weight of L_de over the classes' text features
        "BETA_IMAGE": None,  # [ours] ... over the image features; None: as BETA
        "GAMMA": 20.0,  # [ours] weight of L_con: texts against the hand-crafted ones
        # [ours] ... images against the frozen tower's, one more forward; None: as GAMMA
        "GAMMA_IMAGE": None,
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {
        "N_TEMPLATES": Whole(1, 100),  # M x K texts and B x M images make one batch
        "N_CTX": TOKENS,
        "CTX_INIT": Text(),
        "PROMPT_DEPTH": DEPTH,
        "VISION": OneOf(("coupled", "independent", "none")),
        "SHARE_PROJECTIONS": Flag(),
        "LEARN": OneOf(("all", "tokens")),
        "INIT_NOISE": Number(0),
        "NOISE_SCALE": OneOf(("absolute", "relative")),
        "VIEWS": ListOf(OneOf((*FAMILIES, AS_CONFIGURED))),
        "CROP_ALL_VIEWS": Flag(),
        "EVIDENCE": OneOf(get_args(EvidenceKind)),
        "EVIDENCE_OFFSET": OneOf(("image", "training")),
        "LOSS": OneOf(get_args(Loss)),
        "LOSS_REDUCTION": OneOf(get_args(Reduction)),
        "FUSED_LOSS": Flag(),
        "KL_WEIGHT": Number(0),
        "KL_EPOCHS": Whole(0, 10_000),
        "FUSION": OneOf(get_args(Fusion)),
        "DISCOUNT": Maybe(Either(OneOf(("fit", "geometric")), Number(0, 1, open_low=True))),
        "BETA": Number(0),
        "BETA_IMAGE": Maybe(Number(0)),
        "GAMMA": Number(0),
        "GAMMA_IMAGE": Maybe(Number(0)),
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        """As in CLIPTrainer, and that the settings suit each other.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        super().check_cfg(cfg)
        for complaint in excluded(cfg.TRAINER.CDC):
            raise ValueError(f"TRAINER.CDC.{complaint}")

    # Building

    def train_views(self) -> list:
        """One family of augmentations a template, from the start again where there are fewer."""
        families, n_templates = self.settings.VIEWS, self.settings.N_TEMPLATES
        if unseen := families[n_templates:]:
            print(f"Note: {n_templates} templates see none of the VIEWS {', '.join(unseen)}")
        return [self.view(families[m % len(families)]) for m in range(n_templates)]

    def view(self, family: str) -> Callable | None:
        """The training transform of a family, PIL image to tensor (3, H, W).

        None where INPUT.NO_TRANSFORM says so.
        """
        if family == AS_CONFIGURED:
            return build_transform(self.cfg, is_train=True)
        return family_view(family, self.cfg.INPUT, crop_all=self.settings.CROP_ALL_VIEWS)

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context(self.settings.N_CTX, self.settings.CTX_INIT)

    def build_prompts(self) -> nn.Module:
        """M sets of prompts, with the offset of the evidence and the discount of the fusion."""
        settings = self.settings
        self.objective = objective_of(settings)
        with torch.no_grad():
            template = dataset_template(self.cfg)
            self.handcrafted = class_features(self.clip, self.classnames, [template])  # t^0
        coupled = settings.VISION == "coupled"
        prompts = DecoupledPrompts(
            self.template_prompts,
            settings.N_TEMPLATES,
            noise=settings.INIT_NOISE,
            relative=settings.NOISE_SCALE == "relative",
            shared=PROJECTIONS if coupled and settings.SHARE_PROJECTIONS else (),
        )
        if coupled and settings.LEARN == "tokens":
            for template in prompts.templates:
                for name in PROJECTIONS:
                    template.get_submodule(name).requires_grad_(False)
        # Both are numbers the method measures once; as buffers they travel in the checkpoint.
        prompts.register_buffer("offset", torch.zeros(()))
        prompts.register_buffer("discount", torch.ones(()))
        return prompts

    def template_prompts(self) -> nn.Module:
        """The prompts of one template: MaPLe's or IVLP's in both encoders, or words alone."""
        context, depth = self.context(), self.settings.PROMPT_DEPTH
        if self.settings.VISION == "coupled":
            return coupled_prompts(self.clip, context, depth=depth)
        if self.settings.VISION == "independent":
            return independent_prompts(
                self.clip,
                context,
                text_depth=depth,
                n_vision=context.n_ctx,
                vision_depth=depth,
            )
        return TextPrompts(context.n_ctx, self.text_width, init=context.start(self.clip))

    # The model

    @property
    def image_tower_untouched(self) -> bool:
        """Without image prompts the image tower is CLIP's own, and a test image one plain view."""
        return self.settings.VISION == "none"

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, M, K) of image features (B, E), which all templates share."""
        shared = features.unsqueeze(1).expand(-1, self.settings.N_TEMPLATES, -1)
        return super().feature_logits(shared, text)

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """(B, M, E) under each template.

        View m of images (B, M, 3, H, W) goes through template m, a single one (B, 3, H, W)
        through all.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(prompts.image)):
            return encode_image_sets(self.clip, images, prompts)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(M, K, E), the classes under each template."""
        return encode_text_sets(self.clip, self.class_tokens, prompts)

    def evidence(self, logits: Tensor) -> Tensor:
        """Evidence of every template (B, M, K) from its logits (B, M, K), scale z^m T^m'."""
        if self.settings.EVIDENCE_OFFSET == "image":
            offset = logits.float().mean(-1, keepdim=True)
        else:
            offset = self.model.get_buffer("offset")
        return evidence_from_logits(logits, offset, kind=self.settings.EVIDENCE)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The objective's L_cls of M templates and their fusion, plus the weighted L_de and L_con.

        Args:
            images: (B, M, 3, H, W), view m for template m; without the M axis for one template.
            labels: (B,) int64.

        Returns:
            The loss, and what the templates say together (B, K).
        """
        prompts, objective = self.model(), self.objective
        image_features, frozen = self.with_frozen(images, prompts)
        text_features = self.text_features(prompts)
        logits = self.classify(image_features, text_features)  # (B, M, K)
        evidence = self.evidence(logits)
        loss = objective.classification(logits, evidence, labels, epoch=self.epoch + 1)
        loss = loss + objective.regularisers(
            text_features, image_features, handcrafted=self.handcrafted, frozen=frozen
        )
        return loss, fused_scores(logits, evidence, objective.fusion)

    def with_frozen(self, images: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor | None]:
        """`image_features` of the views, and (B, M, E) in the tower without prompts for L_con."""
        if self.objective.gamma_image:
            return encode_image_sets_twice(self.clip, images, prompts)
        return self.image_features(images, prompts), None

    # Calibration

    def encode_ahead(self) -> None:
        """As in CLIPTrainer; the training images too, where they give the evidence's offset."""
        super().encode_ahead()
        if self.settings.EVIDENCE_OFFSET == "training":
            self.features(self.dm.dataset.train_x, desc="train")

    def before_train(self) -> None:
        """Set the evidence's offset where it is the training images', unless the run is resumed."""
        super().before_train()
        # a resumed run has its offset from the checkpoint
        if self.settings.EVIDENCE_OFFSET == "training" and self.start_epoch == 0:
            offset = self.model.get_buffer("offset").fill_(self.mean_zeroshot_logit())
            print(f"Evidence offset: {offset.item():.4f} (mean zero-shot logit)")

    @torch.no_grad()
    def mean_zeroshot_logit(self) -> float:
        """Mean of CLIP's logits over the training images and all classes, without augmentation."""
        total, count = 0.0, 0
        size = self.cfg.DATALOADER.TEST.BATCH_SIZE
        for features in batches(self.features(self.dm.dataset.train_x), size):
            logits = self.classify(features.to(self.device), self.handcrafted)
            total, count = total + logits.sum().item(), count + logits.numel()
        return total / count

    def calibrate(self) -> None:
        """Set eta: fixed by the configuration, or by likelihood on the validation split."""
        eta = self.settings.DISCOUNT
        if eta == "fit":
            eta = self.fitted_discount()
        elif eta in (None, "geometric"):
            eta = 1 / self.settings.N_TEMPLATES
        self.model.get_buffer("discount").fill_(eta)

    def fitted_discount(self) -> float:
        """eta by likelihood on the validation split; 1 without one."""
        if self.val_loader is None:
            print("No validation split to fit the discount on: Dempster's rule, discount 1")
            return 1.0
        logits, labels = self.validation_logits()
        eta = fit_discount(self.evidence(logits).cpu(), labels)
        print(f"Fusion discount: {eta:.4f} (fitted on {len(labels)} images)")
        return eta

    # Prediction

    def prediction_of(self, logits: Tensor) -> Prediction:
        """Fused in five ways (B, K), the conflict (B,), and what each template says (B, M, K).

        Args:
            logits: (B, M, K), of the plain image, which all templates see at test [ours].
        """
        # In fp64, so that very certain samples do not tie when they are ranked by uncertainty.
        evidence = self.evidence(logits).double()
        # A template answers with what its loss has trained: an opinion, or a softmax.
        trusted = self.settings.LOSS == "trusted"
        templates = of_evidence(evidence) if trusted else of_logits(logits.double())
        discount = self.model.get_buffer("discount").item()
        answers = fused(logits, evidence, templates[0], discount=discount)
        readings = {rule: Reading(*answer) for rule, answer in answers.items()}
        return Prediction(
            main=readings[self.settings.FUSION],
            readings=readings,
            extras={"conflict": conflict(evidence)},
            members={"template": Reading(*templates)},
        )

    def details(self) -> dict[str, Any]:
        """The evidence's offset (0: each image's own), the discount, how alike templates are."""
        with torch.no_grad():
            texts = self.text_features(self.model())
        return {
            "offset": self.model.get_buffer("offset").item(),
            "discount": self.model.get_buffer("discount").item(),
            "template_cosines": template_cosines(texts).tolist(),
        }
