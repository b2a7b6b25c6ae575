"""Measuring: a benchmark of identities x prompts x seeds, made as `make` makes it, measured and shown on one page.

benchmark: the command. ready: pictures that were made elsewhere. measure, metrics, distribution: the figures. table,
page: the results.
"""
