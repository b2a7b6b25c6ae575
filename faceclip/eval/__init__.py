"""Measuring: a benchmark of identities x prompts x seeds made by ComfyUI servers, measured and shown on one page."""
