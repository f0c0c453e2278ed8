"""Causal adaptation of vision-language models: the pure mathematics and CLIP, without Dassl."""
