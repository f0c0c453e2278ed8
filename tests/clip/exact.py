"""A small CLIP in float64, so that two orders of a sum agree to 1e-12; its towers written out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from causalclip.clip.backbone import build_clip
from causalclip.clip.prompt_set import NO_ADDITIONS, Additions

SHAPE = {"vision_layers": 1, "transformer_width": 24, "transformer_heads": 3, "embed_dim": 10}


def exact_clip(**options):
    """Frozen, with biases that are not zero; its LayerNorms in float64 too, as OpenAI's would
    round to fp32."""
    model = build_clip(**{**SHAPE, **options}).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                own = nn.LayerNorm(child.normalized_shape)
                own.load_state_dict(child.state_dict())
                setattr(parent, name, own.requires_grad_(False))
    return model.double()


def low_precision_clip(dtype, **options):
    """The weights that OpenAI's convert_weights casts in `dtype`, the others in fp32."""
    model = build_clip(**{**SHAPE, **options}).requires_grad_(False)
    for name, weight in model.named_parameters():
        if "ln_" not in name and "embedding" not in name:
            weight.data = weight.data.to(dtype)
    return model


def exact_images():
    """Four pictures (4, 3, 32, 32) of noise, always the same."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)


def random_prompts(*shape, depth, width, seed=0):
    """`depth` prompts (*shape, width) that learn, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((depth, *shape, width), generator=generator, dtype=torch.float64)
    return list((0.3 * values).requires_grad_().unbind())


def assert_same(ours, oracle, learned=()):
    """Compare values, and gradients of their squares."""
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)
    if learned:
        pairs = [torch.autograd.grad(f.square().sum(), learned) for f in (ours, oracle)]
        for one, other in zip(*pairs, strict=True):
            assert one.any()
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def hooks_of(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def of_sample(values, k):
    """The prompts of each depth, or the tokens of `Additions`, of sample k."""
    if isinstance(values, Additions):
        own = of_sample(list(values.tokens.values()), k)
        return replace(values, tokens=dict(zip(values.tokens, own, strict=True)))
    return [value[k] if value is not None and value.dim() == 3 else value for value in values]


def slow_texts(model, tokens, prompts=(), positions=None, added=NO_ADDITIONS):
    """(N, E): the context's 77 tokens of each text, block by block."""
    features = []
    for k, row in enumerate(tokens):
        own = of_sample(prompts, k)
        where = None if positions is None else positions[k]
        x = model.token_embedding(row)
        x = x.index_put((where,), own[0]) if own else x
        x = (x + model.positional_embedding)[:, None]
        additions = of_sample(added, k)
        x = slow_blocks(model.transformer.resblocks, x, own, where, additions, causal=True)
        end = row.argmax() + added.n_tokens
        features.append(model.ln_final(x[end, 0]) @ model.text_projection)
    return torch.stack(features)


def slow_images(model, images, prompts=(), added=NO_ADDITIONS):
    """(B, E), and the tokens that entered midway, (B, n, D)."""
    visual, features, left = model.visual, [], []
    for k, pixels in enumerate(images):
        own, additions = of_sample(prompts, k), of_sample(added, k)
        patches = visual.conv1(pixels[None]).flatten(2).transpose(1, 2)[0]
        x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        where = torch.arange(len(x), len(x) + (len(own[0]) if own else 0))
        x = visual.ln_pre(torch.cat([x, *own[:1]]))[:, None]
        x = slow_blocks(visual.transformer.resblocks, x, own, where, additions, causal=False)
        x = visual.ln_post(x[:, 0])
        features.append(x[0] @ visual.proj)
        left.append(x[1 : 1 + added.n_tokens])
    return torch.stack(features), torch.stack(left)


def slow_blocks(blocks, x, prompts, where, added, *, causal):
    """One sample's tokens (L, 1, D) with each prompt and addition by hand."""
    for i, block in enumerate(blocks):
        if 0 < i < len(prompts) and prompts[i] is not None:
            x = x.index_put((where,), prompts[i][:, None])
        if i in added.tokens:
            rest = x[1:] if i == min(added.tokens) else x[1 + added.n_tokens :]
            tokens = added.tokens[i][:, None]
            if i != min(added.tokens):
                old = x[1 : 1 + added.n_tokens]
                tokens = old + added.new_share * (tokens - old)
            x = torch.cat([x[:1], tokens, rest])
        y = block.ln_1(x)
        mask = torch.full((len(x), len(x)), float("-inf")).triu(1).to(x) if causal else None
        out = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        out = out + block.mlp(block.ln_2(out))
        x = out + added.adapters[i](y) if i in added.adapters else out
    return x
