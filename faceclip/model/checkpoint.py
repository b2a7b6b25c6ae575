"""Encoders' checkpoints: read, unwrap, strip anchored prefixes, detect, convert, strict load; and the way back."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, InputError, shown
from ..files.mapped import Source
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
from .encoder import JointEncoder
from .faceclip import BRANCHES
from .families import Config, Family, family_of, family_of_config, has_shared_face_encoder
from .ops import Operations

log = logging.getLogger(__name__)

CONFIG_KEY = "faceclip_config"
FACE_ENCODER = "face_encoder."
# Our layers hold the input projection as a layer; files keep the published names.
_FILE_IN_PROJ, _OUR_IN_PROJ = re.compile(r"\.in_proj_(weight|bias)$"), re.compile(r"\.in_proj\.(weight|bias)$")


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    operations: Operations = ops,
    progress: Progress | None = None,
) -> JointEncoder:
    """Load a FaceCLIP or FaceT5 encoder, as the file's weights say, from our .safetensors or the published .pt.

    dtype: what the weights are stored in, None as in the file; what is computed in is the family's own matter.
    operations: layer classes (faceclip.model.ops, or a host's). progress(done, total) is called per tensor and may
    raise to cancel. Returns the model in inference mode, on `device`. Raises CheckpointError for a file that is
    missing, damaged, unsafe, of another model or incomplete, and InputError for a dtype that the family cannot be kept
    in; then nothing is kept.
    """
    source = Source.of(path)
    state, config = read_faceclip(path, progress, dtype)
    return build(state, config, Path(path).name, device, dtype, operations, source=source)


def read_faceclip(
    path: str | os.PathLike[str], progress: Progress | None = None, dtype: torch.dtype | None = None
) -> tuple[State, Config]:
    """A file's weights under our own file's names and its config; checked for keys, shapes and NaN.

    Where both branches' face encoders are equal, they come once, as `face_encoder.*`. dtype: what they are to be
    stored in later; refused at once where the family cannot be.
    """
    state, metadata = read_state_dict(path)
    name = shown(Path(path).name)
    family = family_of(state)
    if family is None:
        raise CheckpointError(
            f"{name} is not a FaceCLIP encoder, nor a FaceT5 one. {name_other_model(state)} Choose the right file."
        )
    check_dtype(family, dtype)
    state, what = _rename(state, family, name), f"a {family.name} of its config"
    config = family.config.from_json(metadata[CONFIG_KEY]) if CONFIG_KEY in metadata else _detect(state, family, name)
    wanted = spell_out(shapes(config, family.variant(state)), state, name, what)
    report_mismatch(state, wanted, name, what)
    state = share_face_encoder(state)
    check_finite(state, name, progress)
    return state, config


def build(
    state: State,
    config: Config,
    name: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    operations: Operations = ops,
    before_load: Callable[[JointEncoder], None] | None = None,
    source: Source | None = None,
) -> JointEncoder:
    """A model from checked weights (see read_faceclip), which are taken out of `state`.

    Built without memory; the tensors become its weights. before_load: called with the still empty model, for hosts
    that note its dtypes. source: the file that the weights may still lie in.
    """
    family = family_of_config(config)
    variant = family.variant(state)
    stored = stored_dtypes(family, state, dtype)
    model = family.model(config, variant, operations, device="meta")
    empty = {_ours(key): torch.empty_like(value, dtype=stored[key], device="meta") for key, value in state.items()}
    _assign(model, empty)
    if before_load:
        before_load(model)
    weights, in_file = {}, False
    for key in list(state):
        value = state.pop(key)
        moved = value.to(device=device, dtype=stored[key], copy=not value.is_floating_point())
        weights[_ours(key)], in_file = moved, in_file or moved.data_ptr() == value.data_ptr()
    _assign(model, weights)
    if source is not None:
        source.check()
        model.source = source if in_file else None
    log.info("%s: %s", name, family.describe(variant))
    return model.requires_grad_(False).eval()


def _ours(key: str) -> str:
    return _FILE_IN_PROJ.sub(r".in_proj.\1", key)


def _assign(model: JointEncoder, weights: State) -> None:
    missing, extra = model.load_state_dict(weights, strict=False, assign=True)
    assert not missing and not extra, (missing, extra)


def check_dtype(family: Family, dtype: torch.dtype | None) -> None:
    """Raise InputError where a family's weights cannot be stored so."""
    if dtype is not None and dtype in family.refused:
        raise InputError(
            f"A {family.name} cannot be kept in {str(dtype).removeprefix('torch.')}: {family.refused[dtype]}. Choose "
            "bf16, or fp32."
        )


def stored_dtypes(family: Family, state: State, dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """What each weight is stored in where `dtype` is asked for, None for what it has.

    Only matrices take 8 bits: tables, norms and the face encoder, by which identities are told apart, then have bf16.
    Raises InputError where the family cannot be stored so.
    """
    check_dtype(family, dtype)
    if dtype is None:
        return {key: value.dtype for key, value in state.items()}
    rest = torch.bfloat16 if dtype.itemsize == 1 else dtype
    wanted = {key: dtype if family.narrow(key) and value.ndim == 2 else rest for key, value in state.items()}
    return {key: wanted[key] if value.is_floating_point() else value.dtype for key, value in state.items()}


def save(
    model: JointEncoder | State,
    path: str | os.PathLike[str],
    config: Config | None = None,
    dtype: torch.dtype | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write one safetensors file with the published key names and the config in its header.

    model: an encoder, or a state dict (our names, see read_faceclip) with its `config`. dtype: what the weights are
    stored in, None as they are. progress(done, total) is called per tensor and may raise to cancel. The file appears
    whole or not at all. Raises CheckpointError where it exists and `force` is not set, where the weights do not fit the
    config or the dtype's range, and where it cannot be written; InputError for a state dict without a config and for a
    dtype that the family cannot be stored in.
    """
    if isinstance(model, JointEncoder):
        model.check_source()
        sizes: Config = model.config
        state = {_OUR_IN_PROJ.sub(r".in_proj_\1", key): value for key, value in model.state_dict().items()}
    elif config is None:
        raise InputError("A state dict does not name its sizes. Pass config=..., or save the FaceCLIP itself.")
    else:
        sizes, state = config, share_face_encoder(model)
        variant = family_of_config(sizes).variant(state)
        report_mismatch(state, expected_shapes(sizes, variant), "The state dict", "its config")
    stored = stored_dtypes(family_of_config(sizes), state, dtype)
    write_safetensors(state, path, {CONFIG_KEY: sizes.to_json()}, force, stored, progress)


def expected_shapes(config: Config, variant: Any) -> dict[str, tuple[int, ...]]:
    """Every key of a file of these sizes, with its shape.

    variant: for FaceCLIP whether one face encoder serves both branches; for FaceT5 CLIP-L's sizes, or None.
    """
    return dict(shapes(config, variant))


def shapes(config: Config, variant: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The same one by one. The layers of a tower are alike, so a model with one of each tells them all, however many.

    That model is built without memory; one with as many layers as a header can name would take gigabytes all the same.
    """
    family = family_of_config(config)
    stacks = [(re.compile(before + r"0(?=\.)"), count) for before, count in family.stacks(config, variant)]
    for key, value in family.model(*family.thin(config, variant), device="meta").state_dict().items():
        key, shape = _OUR_IN_PROJ.sub(r".in_proj_\1", key), tuple(value.shape)
        first, count = next(((match, n) for stack, n in stacks if (match := stack.match(key))), (None, 0))
        if first is None:
            yield key, shape
            continue
        before, after = key[: first.end() - 1], key[first.end() :]
        for number in range(count):
            yield f"{before}{number}{after}", shape


def face_encoder_hash(model: JointEncoder) -> str:
    """SHA-256 over the face encoder's weights, as 64 hex digits: who read an identity.

    Taken over float32 values, so a bf16 file and its fp32 copy have the same. Both encoders count where there are two.
    """
    model.check_source()
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
    if not copies[0] or has_shared_face_encoder(state) or not equal_states(*copies):
        return state
    rest = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    return {**{FACE_ENCODER + key: value for key, value in copies[0].items()}, **rest}


def _rename(state: State, family: Family, name: str) -> State:
    names = {key: new for key in state if (new := family.rename(key)) is not None}
    twice = len(names) - len(set(names.values()))
    if twice:
        raise CheckpointError(
            f"{name} holds {twice} weights twice, with and without a prefix such as `model.`, and "
            "it is not clear which count. Save one state dict only."
        )
    return {new: state[key] for key, new in names.items()}


def _detect(state: State, family: Family, name: str) -> Config:
    """The published sizes, if a file without a config has them; heads cannot be read off shapes."""
    for key, wanted in family.probes(family.published).items():
        if key in state and tuple(state[key].shape) != wanted:
            raise CheckpointError(
                f"{name} has no {CONFIG_KEY} in its header, and {key} is {list(state[key].shape)} where the published "
                f"model has {list(wanted)}. Wanted: the published file, or one written by `python -m faceclip convert` "
                "or faceclip.save, which names its sizes."
            )
    return family.published
