"""The cartoon people that the small model is trained on.

character: who somebody is. scene: what the caption tells. canvas, figure, head, hair, backgrounds, render: the
drawing. dataset: many of them on disk. augment: how pictures are changed while training.
"""
