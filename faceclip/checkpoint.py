"""FaceCLIP checkpoints: read, unwrap, strip anchored prefixes, detect, convert, strict load; and the way back."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

from . import ops
from .config import PUBLISHED, FaceCLIPConfig
from .errors import CheckpointError
from .model import BRANCHES, FaceCLIP
from .state_dict import (
    Progress,
    State,
    check_finite,
    equal_states,
    name_other_model,
    read_state_dict,
    report_mismatch,
    strip_prefix,
    write_safetensors,
)

log = logging.getLogger(__name__)

CONFIG_KEY = "faceclip_config"
FACE_ENCODER = "face_encoder."
# Our layers hold the input projection as a layer; files keep the published names.
_IN_PROJ = (re.compile(r"\.in_proj_(weight|bias)$"), r".in_proj.\1"), (re.compile(r"\.in_proj\.(weight|bias)$"), r".in_proj_\1")


def load(
    path: str | os.PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    operations=ops,
    progress: Progress | None = None,
) -> FaceCLIP:
    """Load a FaceCLIP encoder from our .safetensors or the published .pt.

    dtype: what the weights are stored in, None as in the file; arithmetic is float32 either way. operations: layer
    classes (faceclip.ops, or a host's). progress(done, total) is called per tensor and may raise to cancel.
    Returns the model in inference mode, on `device`. Raises CheckpointError for a file that is missing, damaged,
    unsafe, of another model or incomplete; then nothing is kept.
    """
    state, config = read_faceclip(path, progress)
    return build(state, config, Path(path).name, device, dtype, operations)


def read_faceclip(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, FaceCLIPConfig]:
    """A file's weights under the published names and its config; checked for keys, shapes and NaN.

    Where both branches' face encoders are equal, they come once, as `face_encoder.*`.
    """
    state, metadata = read_state_dict(path, progress)
    name = Path(path).name
    state = _strip(state)
    if not any(key.startswith(tuple(f"{b}." for b in BRANCHES)) for key in state):
        raise CheckpointError(f"{name} is not a FaceCLIP encoder. {name_other_model(state)} Choose the right file.")
    state = share_face_encoder(state)
    config = FaceCLIPConfig.from_json(metadata[CONFIG_KEY]) if CONFIG_KEY in metadata else _detect(state, name)
    report_mismatch(state, expected_shapes(config, _is_shared(state)), name, "a FaceCLIP encoder of its config")
    check_finite(state, name)
    return state, config


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
        weights[_IN_PROJ[0][0].sub(_IN_PROJ[0][1], key)] = value.to(device=device, dtype=wanted)
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
) -> None:
    """Write one safetensors file with the published key names and the config in its header.

    model: a FaceCLIP, or a state dict with its `config`. The file appears whole or not at all; an existing one is
    refused unless `force` is set (CheckpointError).
    """
    if isinstance(model, FaceCLIP):
        config = model.config
        state = {_IN_PROJ[1][0].sub(_IN_PROJ[1][1], key): value for key, value in model.state_dict().items()}
    else:
        state = share_face_encoder(model)
    state = {k: v.detach().to("cpu", dtype if v.is_floating_point() else None) for k, v in state.items()}
    write_safetensors(state, path, {CONFIG_KEY: config.to_json()}, force)


def expected_shapes(config: FaceCLIPConfig, shared_face_encoder: bool) -> dict[str, tuple[int, ...]]:
    """Every published key of a model of these sizes, with its shape."""
    model = FaceCLIP(config, shared_face_encoder, device="meta")
    return {_IN_PROJ[1][0].sub(_IN_PROJ[1][1], k): tuple(v.shape) for k, v in model.state_dict().items()}


def share_face_encoder(state: State) -> State:
    """Keep one face encoder as `face_encoder.*` where the branches' two copies are equal, tensor by tensor."""
    copies = [
        {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        for prefix in (f"{branch}.{FACE_ENCODER}" for branch in BRANCHES)
    ]
    if not copies[0] or not equal_states(*copies):
        return state
    rest = {key: value for key, value in state.items() if not key.startswith(tuple(f"{b}.{FACE_ENCODER}" for b in BRANCHES))}
    return {**{FACE_ENCODER + key: value for key, value in copies[0].items()}, **rest}


def _is_shared(state: State) -> bool:
    return any(key.startswith(FACE_ENCODER) for key in state)


def _strip(state: State) -> State:
    """The published file may carry `model.` in front of, or right after, the branch name."""
    state = strip_prefix(state, ("module.", "model."))
    after = re.compile(rf"^({'|'.join(BRANCHES)})\.(?:module\.|model\.)")
    return {after.sub(r"\1.", key): value for key, value in state.items()}


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
