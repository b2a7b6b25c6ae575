"""Public weights to start from, by path: CLIP towers (open_clip's layout, e.g. MetaCLIP) and a face recognition ViT.

Nothing is downloaded here, and no pickle is executed: files are read as everywhere in the library.
"""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import CheckpointError, DependencyError, InputError, shown
from ..files.state_dict import State, check_finite, read_state_dict, report_mismatch, strip_prefix
from ..install import extras
from ..model import checkpoint
from ..model.config import FACE_GRID, FaceCLIPConfig, FaceConfig, FuserConfig, TextConfig
from ..model.face_encoder import FaceEncoder
from ..model.faceclip import Branch, FaceCLIP
from .alignment import initialise

if TYPE_CHECKING:
    from open_clip.model import CLIP

CLIP_CONFIG_KEY = "open_clip_config"  # header entry of a CLIP file that names its own sizes, as open_clip's JSON
PUBLISHED_FUSER = FuserConfig(heads=8, layers=6, feedforward=2048, points=4)
# OpenAI's, which nearly every CLIP uses.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IN_PROJ = re.compile(r"\.in_proj_(weight|bias)$")
_WEIGHTS_PER_LAYER = 8  # at least, in every tower here
_LARGEST_SIZE = 2**17
_FACE_PREFIXES = ("module.", "model.", "backbone.", "face_encoder.")


def load_faceclip(path: str | os.PathLike, dtype: torch.dtype | None = None) -> FaceCLIP:
    """`faceclip.load` for what training takes: FaceCLIP. Raises InputError for its sibling FaceT5, CheckpointError."""
    model = checkpoint.load(path, dtype=dtype)
    if not isinstance(model, FaceCLIP):
        raise InputError(f"{path} is a FaceT5 encoder, whose training is not part of this pack. Name a FaceCLIP.")
    return model


class VisionTower(nn.Module):
    """A frozen CLIP vision tower with its preprocessing: float [B, 3, H, W] in [0, 1] -> [B, W], not normalised."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, visual: nn.Module, mean=_MEAN, std=_STD):
        super().__init__()
        self.visual = visual
        size: Any = visual.image_size
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        if tuple(pictures.shape[-2:]) != self.size:
            pictures = F.interpolate(pictures, self.size, mode="bicubic", align_corners=False, antialias=True)
        return self.visual((pictures.clamp(0, 1) - self.mean) / self.std)


def load_clip(path: str | os.PathLike, model: str | None = None) -> tuple["CLIP", dict]:
    """A CLIP of open_clip's own class with the weights of a file, frozen, and its config.

    model: open_clip's name of its sizes ("ViT-L-14-quickgelu"), not needed where the file's header names them under
    `open_clip_config`. Raises CheckpointError for a file that is damaged or of other sizes, InputError for a name
    open_clip does not know.
    """
    try:
        import open_clip
        from open_clip.model import CLIP
    except ImportError as error:
        raise DependencyError(
            f'CLIP towers need open_clip ({error}), which the extra "train" brings: {extras.install_line("train")}'
        ) from error
    state, metadata = read_state_dict(path)
    name = shown(Path(path).name)
    if CLIP_CONFIG_KEY in metadata:
        config = _named_sizes(metadata[CLIP_CONFIG_KEY], len(state), name)
    else:
        config = open_clip.get_model_config(model) if model else None
        if config is None:
            raise InputError(
                f"{name} does not name its sizes, and the model name {model!r} is not one open_clip knows. Give "
                'open_clip\'s name, for instance "ViT-L-14-quickgelu" or "ViT-bigG-14".'
            )
    config = {
        key: value for key, value in config.items() if key in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    }
    state, what = strip_prefix(state, ("module.",)), f"a CLIP of the sizes {model or 'its header names'}"
    try:
        with torch.device("meta"):  # without memory, until the file is known to have the weights
            empty = CLIP(**config)
    except Exception as error:  # sizes that do not go together end in any of open_clip's or torch's errors
        raise CheckpointError(f"{name} is not {what}: {shown(error)}. Save it with open_clip's own config.") from error
    report_mismatch(state, {key: tuple(value.shape) for key, value in empty.state_dict().items()}, name, what)
    check_finite(state, name)
    clip = CLIP(**config)
    clip.load_state_dict(state)
    return clip.float().requires_grad_(False).eval(), config


def _named_sizes(text: str, weights: int, name: str) -> dict:
    """open_clip's config out of a file's header: sizes only, and no more layers than the file has weights for.

    Names of other packages' models (`hf_model_name`, `timm_model_name`) would make open_clip fetch them.
    """
    try:
        config = json.loads(text)
        parts = {part: dict(config[part]) for part in ("vision_cfg", "text_cfg")}
        entries = [(key, value) for part in (config, *parts.values()) for key, value in part.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} has an {CLIP_CONFIG_KEY} that cannot be read: {shown(error)}.") from error
    for key, value in entries:
        if key.startswith(("hf_", "timm_")):
            raise CheckpointError(f"{name} names the model of another package ({shown(key)}); only sizes are wanted.")
        most = weights // _WEIGHTS_PER_LAYER if key == "layers" else _LARGEST_SIZE
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not 0 <= number <= most:
                raise CheckpointError(f"{name} names {shown(key)} {shown(number)}, at most {most} fit its weights.")
    return config


def text_config(config: dict) -> TextConfig:
    """The text tower's sizes out of open_clip's config; raises InputError for one FaceCLIP cannot use."""
    text = config["text_cfg"]
    if text["width"] != config["embed_dim"]:
        raise InputError(
            f"The CLIP's text width is {text['width']} and its embedding {config['embed_dim']}; FaceCLIP wants them "
            "equal, as in ViT-L-14 (768) and ViT-bigG-14 (1280). Choose another CLIP."
        )
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    return TextConfig(text["width"], text["heads"], text["layers"], activation)


def read_face_encoder(path: str | os.PathLike, heads: int = 8) -> tuple[State, FaceConfig]:
    """A face recognition ViT's weights under the library's names, and its sizes (heads cannot be read off shapes).

    Takes the layout the published encoder was trained in (patch_embed, blocks, norm, feature), bare or behind
    `module.`, `backbone.` and the like. Raises CheckpointError for anything else.
    """
    state, _ = read_state_dict(path)
    name = Path(path).name
    state = strip_prefix(state, _FACE_PREFIXES)
    needed = ("patch_embed.proj.weight", "feature.2.weight", "norm.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"{name} is not the face recognition ViT that FaceCLIP reads: it has no {', '.join(missing)}. Wanted a ViT "
            f"with 9 x 9 patches on 112 x 112 px ({FACE_GRID * FACE_GRID} tokens) and a `feature` head."
        )
    if any(state[key].ndim == 0 for key in needed):
        raise CheckpointError(f"{name} has weights without a size where {', '.join(needed)} are wanted.")
    layers = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    if layers > len(state) // _WEIGHTS_PER_LAYER:
        raise CheckpointError(f"{name} names {layers} blocks, and its {len(state)} weights are too few for them.")
    width, embed_dim = state["patch_embed.proj.weight"].shape[0], state["feature.2.weight"].shape[0]
    config = FaceConfig(width, heads, layers, embed_dim)
    shapes = {key: tuple(value.shape) for key, value in FaceEncoder(config, device="meta").state_dict().items()}
    state.setdefault("mask_token", torch.zeros(1, 1, width))
    report_mismatch(state, shapes, name, "a face recognition ViT of its sizes")
    check_finite(state, name)
    return state, config


def new_faceclip(
    clips: dict[str, tuple["CLIP", dict]],
    face: tuple[State, FaceConfig],
    fuser: FuserConfig = PUBLISHED_FUSER,
    seed: int = 0,
    gamma: float = 1e-4,
) -> FaceCLIP:
    """A FaceCLIP before stage A: public towers, fresh projections and fusers (see alignment.initialise).

    clips: by branch letter, from load_clip. face: from read_face_encoder. Float32, on the CPU.
    """
    state, face_config = face
    config = FaceCLIPConfig(l=text_config(clips["l"][1]), g=text_config(clips["g"][1]), face=face_config, fuser=fuser)
    FaceCLIPConfig.from_json(config.to_json())  # refuses sizes that do not go together
    model = FaceCLIP(config, shared_face_encoder=True, dtype=torch.float32)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    initialise(model, seed, gamma)
    model.face_encoder.load_state_dict(state)
    for letter in ("l", "g"):
        _copy_text_tower(clips[letter][0], getattr(model, f"face_clip_{letter}"))
    return model


def _copy_text_tower(clip: nn.Module, branch: Branch) -> None:
    parts = ("positional_embedding", "text_projection", "transformer.", "token_embedding.", "ln_final.")
    state = {key: value for key, value in clip.state_dict().items() if key.startswith(parts)}
    renamed = {_IN_PROJ.sub(r".in_proj.\1", key): value for key, value in state.items()}
    missing, extra = branch.load_state_dict(renamed, strict=False)
    left = [key for key in missing if key.startswith(parts)]
    assert not left and not extra, (left, extra)
