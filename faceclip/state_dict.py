"""Reading model files safely: the first half of every checkpoint pipeline (read, unwrap, strip, compare).

No pickle is ever executed: `.pt` files are read with `weights_only=True` or refused.
"""

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from .errors import CheckpointError

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total); may raise to cancel
State = dict[str, torch.Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "ema")
_NAMED_KEYS = 4  # how many keys an error spells out

# What other models' keys look like, so that a wrong file is named instead of listed.
_OTHER_MODELS = (
    (r"(^|\.)(face_clip_l|face_clip_g)\.", "a FaceCLIP encoder (load it with Load FaceCLIP)"),
    (r"lora_(up|down|A|B)|lora_unet", "a LoRA (load it with the LoRA loader)"),
    (r"^conditioner\.embedders|^first_stage_model\.", "a whole SDXL checkpoint (load it with Load Checkpoint)"),
    (r"^(model\.)?(diffusion_model\.)?input_blocks\.", "an SDXL UNet in the original, not the diffusers, layout"),
    (r"^(model\.)?(down_blocks|up_blocks|mid_block)\..*attn2|^add_embedding\.", "a diffusers SDXL UNet"),
    (r"^(model\.)?(double_blocks|single_blocks|transformer_blocks)\.", "a diffusion transformer such as FLUX or SD3"),
    (r"^(encoder|decoder)\.(down|up|mid)|^(quant_conv|post_quant_conv)\.|^decoder\.\d+\.", "a VAE"),
    (r"^(text_model|vision_model|visual|cond_stage_model)\.", "a CLIP model"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
)


def read_state_dict(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, dict[str, str]]:
    """Read a `.safetensors` or weights-only `.pt` file without copying its weights to memory twice.

    Returns the unwrapped tensors and the safetensors header's metadata. progress(done, total) is called per tensor
    and may raise to cancel. Raises CheckpointError for a file that is missing, damaged, unsafe or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Check the name, or download the file first.")
    with open(path, "rb") as file:
        head = file.read(16)
    if path.suffix.lower() == ".safetensors" or (not head.startswith((b"PK", b"\x80")) and b"{" in head[8:10]):
        state, metadata = _read_safetensors(path, progress)
    else:
        state, metadata = _read_torch(path), {}
    return unwrap(state, path), metadata


def _read_safetensors(path: Path, progress: Progress | None) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys())
            state = {}
            for i, key in enumerate(keys):
                state[key] = file.get_tensor(key)
                if progress:
                    progress(i + 1, len(keys))
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"{path.name} ({path.stat().st_size:,} bytes) is not a whole safetensors file: {error}. "
            "It is truncated, damaged or of another kind; download it again."
        ) from error
    return state, metadata


def _read_torch(path: Path) -> object:
    size = f"{path.stat().st_size:,} bytes"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and ("GLOBAL" in str(error) or "Unsupported" in str(error)):
            raise CheckpointError(
                f"{path.name} holds pickled Python objects, not just weights, and loading it would run code from the "
                "file; it is refused. Save only the state dict (`torch.save(model.state_dict(), ...)`) where the file "
                "comes from, or use a .safetensors file."
            ) from error
        raise CheckpointError(
            f"{path.name} ({size}) is not a model checkpoint that can be read ({_first_line(error)}). "
            "Wanted: a .safetensors file, or a .pt state dict. Check the download."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path.name} ({size}) cannot be read as a checkpoint ({_first_line(error)}). "
            "It is truncated, damaged or no checkpoint at all; download it again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def unwrap(state: object, path: str | os.PathLike) -> State:
    """Take the tensors out of the wrappers that trainers put around them ({"state_dict": {...}} and the like)."""
    name = Path(path).name
    while isinstance(state, dict):
        inner = [state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)]
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, dict):
        raise CheckpointError(f"{name} holds a {type(state).__name__}, wanted a state dict (names and tensors).")
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{name} holds no weights: none of its {len(state)} entries is a tensor.")
    return tensors


def strip_prefix(state: State, prefixes: Iterable[str]) -> State:
    """Remove the first of `prefixes` that every key starts with (again while one fits); never a part of the keys."""
    prefixes = tuple(prefixes)
    while prefix := next((p for p in prefixes if all(key.startswith(p) for key in state)), None):
        state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def name_other_model(state: State) -> str:
    """Plain words for what a wrong file looks like, or a few of its keys."""
    for pattern, words in _OTHER_MODELS:
        if any(re.search(pattern, key) for key in state):
            return f"It looks like {words}."
    return f"Its keys look like {_some(state)}."


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    shown = ", ".join(map(str, keys[:_NAMED_KEYS]))
    return shown if len(keys) <= _NAMED_KEYS else f"{shown}, ... ({len(keys)} in all)"


def report_mismatch(state: State, shapes: dict[str, tuple[int, ...]], name: str, what: str) -> None:
    """Raise CheckpointError unless `state` has exactly these keys and shapes.

    name: the file's name. what: the model wanted, in words. The first few missing, unexpected and mis-shaped keys are
    named with their counts; a file that shares no key with the model is named as what it is.
    """
    missing = [key for key in shapes if key not in state]
    extra = [key for key in state if key not in shapes]
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(shapes[key])}"
        for key in shapes
        if key in state and tuple(state[key].shape) != tuple(shapes[key])
    ]
    if not (missing or extra or wrong):
        return
    if len(missing) == len(shapes):
        raise CheckpointError(f"{name} is not {what}. {name_other_model(state)} Choose the right file.")
    problems = [
        f"{len(found)} {word}: {_some(found)}"
        for word, found in (("missing", missing), ("unexpected", extra), ("of the wrong shape", wrong))
        if found
    ]
    raise CheckpointError(
        f"{name} does not fit {what}: {'; '.join(problems)}. Nothing was loaded. "
        "The file is incomplete or belongs to another model; download it again or choose another."
    )


def check_finite(state: State, name: str) -> None:
    """Raise CheckpointError naming the weights that hold NaN or infinity."""
    bad = [
        key
        for key, value in state.items()
        # A sum carries any NaN or infinity along, without a mask as large as the weight.
        if value.is_floating_point() and not torch.isfinite(value.sum(dtype=torch.float32))
    ]
    bad = [key for key in bad if not torch.isfinite(state[key].float()).all()]  # a sum may overflow by itself
    if bad:
        raise CheckpointError(
            f"{name} has NaN or infinite values in {len(bad)} weights: {_some(bad)}. "
            "Pictures made with it would be black or noise; download the file again."
        )


def equal_states(a: State, b: State) -> bool:
    """True where both have the same keys and equal values, tensor by tensor."""
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def write_safetensors(state: State, path: str | os.PathLike, metadata: dict[str, str], force: bool = False) -> None:
    """Write a file that is there whole or not at all (a temporary file beside it, then a rename).

    Raises CheckpointError where the file exists and `force` is not set.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists already. Choose another name, or overwrite it with --force.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(
            {key: value.contiguous() for key, value in state.items()}, temporary, {"format": "pt", **metadata}
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
