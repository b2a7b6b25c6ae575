"""A very small FaceCLIP, CLIPs, VAE and UNet for training tests: random weights, written as the files a run names."""

import json

import torch
from torch import nn

from faceclip.files.state_dict import write_safetensors
from faceclip.model.config import CONTEXT_LENGTH, VOCABULARY, FaceConfig, FuserConfig, TextConfig
from faceclip.model.face_encoder import FaceEncoder
from faceclip.train import towers

TEXT = {"l": TextConfig(16, 2, 1, "quick_gelu"), "g": TextConfig(32, 4, 2, "gelu")}
FACE = FaceConfig(width=16, heads=2, layers=1, embed_dim=8)
FUSER = FuserConfig(heads=4, layers=2, feedforward=32, points=2)
IMAGE_SIZE = 32


def clip_config(letter: str) -> dict:
    text = TEXT[letter]
    return {
        "embed_dim": text.width,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": {"image_size": IMAGE_SIZE, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCABULARY,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }


def random_clip(letter: str):
    """open_clip's class with random weights, its text tower included."""
    from open_clip.model import CLIP

    torch.manual_seed(ord(letter))
    clip = CLIP(**clip_config(letter))
    nn.init.normal_(clip.token_embedding.weight, std=0.5)
    return clip.requires_grad_(False).eval()


def random_face_encoder() -> FaceEncoder:
    torch.manual_seed(5)
    encoder = FaceEncoder(FACE)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return encoder.requires_grad_(False)


def write_towers(folder) -> dict:
    """clip_l, clip_g and face as files; their paths by the names a run's [model] table has."""
    paths = {name: folder / f"{name}.safetensors" for name in ("clip_l", "clip_g", "face")}
    for letter in ("l", "g"):
        metadata = {towers.CLIP_CONFIG_KEY: json.dumps(clip_config(letter))}
        write_safetensors(dict(random_clip(letter).state_dict()), paths[f"clip_{letter}"], metadata, force=True)
    write_safetensors(dict(random_face_encoder().state_dict()), paths["face"], {}, force=True)
    return paths


def new_model(gamma: float = 0.5):
    """A FaceCLIP as stage A begins with it."""
    clips = {letter: (random_clip(letter), clip_config(letter)) for letter in ("l", "g")}
    return towers.new_faceclip(clips, (random_face_encoder().state_dict(), FACE), FUSER, gamma=gamma)


def batch(size: int, seed: int = 0) -> dict:
    """A batch of stage A, faces and pictures included."""
    from faceclip.train.alignment import token_ids

    generator = torch.Generator().manual_seed(seed)
    captions = [f"person number {seed * 1000 + i} in a {('red', 'blue', 'green')[i % 3]} coat" for i in range(size)]
    return {
        "face": torch.rand(size, 3, 112, 112, generator=generator),
        "picture": torch.rand(size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator),
        "ids": token_ids(captions, False),
        "joint_ids": token_ids(captions, True),
    }
