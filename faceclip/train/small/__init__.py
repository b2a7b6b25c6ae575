"""The small model, trained on people we draw: cartoons of 128 x 128 px whose captions are known.

command: all of it, one after the other. recipe: recipe.toml, and the folder that is worked in. stages: what is
trained, in order: vae, face_tower, clip, classifier, then the paper's two. cartoons/: the people. features: what stage
B reads, computed once. generate: pictures. scores: what the model can do. sheet: the figures against their bars, and a
picture. shipped: the files in small/weights. style: a LoRA that goes
with them, made after them.
"""
