"""CLIP: its weights, prompts inside the unmodified model, templates, zero-shot."""
