"""FaceCLIP checkpoints: read, unwrap, strip anchored prefixes, detect, convert, strict load; and the way back."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import CheckpointError, InputError, shown
from ..files.state_dict import (
    Progress,
    State,
    check_finite,
    equal_states,
    name_other_model,
    read_state_dict,
    report_mismatch,
    spell_out,
    write_safetensors,
)
from . import ops
from .config import PUBLISHED, FaceCLIPConfig
from .faceclip import BRANCHES, FaceCLIP

log = logging.getLogger(__name__)

CONFIG_KEY = "faceclip_config"
FACE_ENCODER = "face_encoder."
# Our layers hold the input projection as a layer; files keep the published names.
_FILE_IN_PROJ, _OUR_IN_PROJ = re.compile(r"\.in_proj_(weight|bias)$"), re.compile(r"\.in_proj\.(weight|bias)$")
# A key of the first layer in one of the towers, as far as its number and behind it.
_LAYER = re.compile(
    r"(?P<before>(?:face_clip_(?P<branch>[lg])\.)?.*?\.(?P<kind>resblocks|blocks|\w*layers)\.)0(?P<after>\..*)"
)
# The published file may carry `model.` in front of, or right after, the branch name; trainers add `module.`.
_PREFIX = re.compile(rf"^(?:module\.|model\.)*(?:({'|'.join(BRANCHES)})\.(?:module\.|model\.)*|(face_encoder)\.)")


def load(
    path: str | os.PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    operations=ops,
    progress: Progress | None = None,
) -> FaceCLIP:
    """Load a FaceCLIP encoder from our .safetensors or the published .pt.

    dtype: what the weights are stored in, None as in the file; arithmetic is float32 either way. operations: layer
    classes (faceclip.model.ops, or a host's). progress(done, total) is called per tensor and may raise to cancel.
    Returns the model in inference mode, on `device`. Raises CheckpointError for a file that is missing, damaged,
    unsafe, of another model or incomplete; then nothing is kept.
    """
    state, config = read_faceclip(path, progress)
    return build(state, config, Path(path).name, device, dtype, operations)


def read_faceclip(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, FaceCLIPConfig]:
    """A file's weights under the published names and its config; checked for keys, shapes and NaN.

    Where both branches' face encoders are equal, they come once, as `face_encoder.*`.
    """
    state, metadata = read_state_dict(path)
    name, what = shown(Path(path).name), "a FaceCLIP encoder of its config"
    if not is_faceclip(state):
        raise CheckpointError(f"{name} is not a FaceCLIP encoder. {name_other_model(state)} Choose the right file.")
    state = _strip(state, name)
    config = FaceCLIPConfig.from_json(metadata[CONFIG_KEY]) if CONFIG_KEY in metadata else _detect(state, name)
    wanted = spell_out(shapes(config, _is_shared(state)), state, name, what)
    report_mismatch(state, wanted, name, what)
    state = share_face_encoder(state)
    check_finite(state, name, progress)
    return state, config


def is_faceclip(state: State) -> bool:
    """True where a file's keys are those of a FaceCLIP encoder, whole or not, whatever prefix they carry."""
    return any((match := _PREFIX.match(key)) and match[1] for key in state)


def build(
    state: State,
    config: FaceCLIPConfig,
    name: str,
    device="cpu",
    dtype: torch.dtype | None = None,
    operations=ops,
    before_load: Callable[[FaceCLIP], None] | None = None,
) -> FaceCLIP:
    """A model from checked weights (see read_faceclip), which are taken out of `state`.

    Built without memory; the tensors become its weights. before_load: called with the still empty model, for hosts
    that note its dtypes.
    """
    shared = _is_shared(state)
    stored = dtype or next(value.dtype for value in state.values() if value.is_floating_point())
    model = FaceCLIP(config, shared, operations, device="meta", dtype=stored)
    if before_load:
        before_load(model)
    weights = {}
    for key in list(state):
        value = state.pop(key)
        wanted = dtype if value.is_floating_point() else None
        weights[_FILE_IN_PROJ.sub(r".in_proj.\1", key)] = value.to(device=device, dtype=wanted)
    missing, extra = model.load_state_dict(weights, strict=False, assign=True)
    assert not missing and not extra, (missing, extra)
    log.info("%s: %s", name, "one face encoder serves both branches" if shared else "each branch has its face encoder")
    return model.requires_grad_(False).eval()


def save(
    model: FaceCLIP | State,
    path: str | os.PathLike,
    config: FaceCLIPConfig | None = None,
    dtype: torch.dtype | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write one safetensors file with the published key names and the config in its header.

    model: a FaceCLIP, or a state dict (published names) with its `config`. dtype: what the weights are stored in, None
    as they are. progress(done, total) is called per tensor and may raise to cancel. The file appears whole or not at
    all. Raises CheckpointError where it exists and `force` is not set, where the weights do not fit the config or the
    dtype's range, and where it cannot be written; InputError for a state dict without a config.
    """
    if isinstance(model, FaceCLIP):
        config = model.config
        state = {_OUR_IN_PROJ.sub(r".in_proj_\1", key): value for key, value in model.state_dict().items()}
    elif config is None:
        raise InputError("A state dict does not name its sizes. Pass config=..., or save the FaceCLIP itself.")
    else:
        state = share_face_encoder(model)
        report_mismatch(state, expected_shapes(config, _is_shared(state)), "The state dict", "its config")
    write_safetensors(state, path, {CONFIG_KEY: config.to_json()}, force, dtype, progress)


def expected_shapes(config: FaceCLIPConfig, shared_face_encoder: bool) -> dict[str, tuple[int, ...]]:
    """Every published key of a model of these sizes, with its shape."""
    return dict(shapes(config, shared_face_encoder))


def shapes(config: FaceCLIPConfig, shared_face_encoder: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The same one by one. The layers of a tower are alike, so a model with one of each tells them all, however many.

    That model is built without memory; one with as many layers as a header can name would take gigabytes all the same.
    """
    thin = {part: replace(getattr(config, part), layers=1) for part in ("l", "g", "face", "fuser")}
    model = FaceCLIP(FaceCLIPConfig(**thin), shared_face_encoder, device="meta")
    for key, value in model.state_dict().items():
        key = _OUR_IN_PROJ.sub(r".in_proj_\1", key)
        layer = _LAYER.match(key)
        if layer is None:
            yield key, tuple(value.shape)
            continue
        branch, kind = layer["branch"], layer["kind"]
        part = {"resblocks": branch, "blocks": "face"}.get(kind, "fuser")
        for number in range(getattr(config, part).layers):
            yield f"{layer['before']}{number}{layer['after']}", tuple(value.shape)


def face_encoder_hash(model: FaceCLIP) -> str:
    """SHA-256 over the face encoder's weights, as 64 hex digits: who read an identity.

    Taken over float32 values, so a bf16 file and its fp32 copy have the same. Both encoders count where there are two.
    """
    digest = hashlib.sha256()
    for encoder in model.face_encoders:
        for key, value in sorted(encoder.state_dict().items()):
            if value.is_floating_point():
                digest.update(key.encode())
                digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def share_face_encoder(state: State) -> State:
    """Keep one face encoder as `face_encoder.*` where the branches' two copies are equal, tensor by tensor."""
    prefixes = tuple(f"{branch}.{FACE_ENCODER}" for branch in BRANCHES)
    copies = [
        {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)} for prefix in prefixes
    ]
    if not copies[0] or _is_shared(state) or not equal_states(*copies):
        return state
    rest = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    return {**{FACE_ENCODER + key: value for key, value in copies[0].items()}, **rest}


def _is_shared(state: State) -> bool:
    return any(key.startswith(FACE_ENCODER) for key in state)


def _strip(state: State, name: str) -> State:
    stripped = {_PREFIX.sub(lambda m: f"{m[1] or m[2]}.", key): value for key, value in state.items()}
    if len(stripped) < len(state):
        raise CheckpointError(
            f"{name} holds {len(state) - len(stripped)} weights twice, with and without a prefix such as `model.`, and "
            "it is not clear which count. Save one state dict only."
        )
    return stripped


def _detect(state: State, name: str) -> FaceCLIPConfig:
    """The published sizes, if a file without a config has them; heads cannot be read off shapes."""
    probes = {
        "face_clip_l.positional_embedding": (77, PUBLISHED.l.width),
        "face_clip_g.positional_embedding": (77, PUBLISHED.g.width),
    }
    for key, wanted in probes.items():
        if key in state and tuple(state[key].shape) != wanted:
            raise CheckpointError(
                f"{name} has no {CONFIG_KEY} in its header, and {key} is {list(state[key].shape)} where the published "
                f"model has {list(wanted)}. Wanted: the published file, or one written by `python -m faceclip convert` "
                "or faceclip.save, which names its sizes."
            )
    return PUBLISHED
