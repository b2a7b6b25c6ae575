"""Measuring: a benchmark of identities x prompts x seeds made by ComfyUI servers, measured and shown on one page.

benchmark: the command. grid: the benchmark's file, with graph: the workflow it fills in. servers, ray_pool, work: who
makes the pictures. store: the pictures. measure, metrics, distribution: the figures. table, page: the
results.
"""
