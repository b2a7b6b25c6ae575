"""The small model that comes along.

models: its sizes, and its files put where ComfyUI looks. pictures: what the examples open with.
weights/: the files, and the people it is shown with.
"""
