"""Reading model files safely (read, unwrap, strip, compare), the first half of every checkpoint pipeline; and writing.

No pickle is ever executed: `.pt` files are read with `weights_only=True` or refused.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, NameTakenError, shown
from . import mapped, whole
from .header import LONGEST_KEY, MOST_KEYS, Damage, read_header
from .torch_file import check_tensors, first_line, read_torch, size_of

Progress = Callable[[int, int], None]  # (done, total); may raise to cancel
State = dict[str, torch.Tensor]

GGUF = (
    "is a GGUF file; wanted a .safetensors or .pt file. A GGUF of FaceCLIP's UNet is loaded by Unet Loader (GGUF), "
    "UnetLoaderGGUF of the pack ComfyUI-GGUF, in place of Load FaceCLIP Diffusion Model."
)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "ema")
_WRAPPED_AT_MOST = 8  # a pickle may hold itself
_MAY_BE_MISSING = 4000  # weights; more than any model here has
_NAMED_KEYS = 4  # how many keys an error spells out
_SUMMED_AT_ONCE = 2**24

# What other models' keys look like, so that a wrong file is named instead of listed.
_OTHER_MODELS = (
    (r"(^|\.)(face_clip_l|face_clip_g)\.", "a FaceCLIP encoder (load it with Load FaceCLIP)"),
    (r"(^|\.)t5_encoder\.block\.", "a FaceT5 encoder (load it with Load FaceCLIP)"),
    (r"lora_(up|down|A|B)|lora_unet", "a LoRA (load it with the LoRA loader)"),
    (r"^(ip_adapter|image_proj)\.", "an IP-Adapter or InstantID (other packs load it)"),
    (r"^conditioner\.embedders", "a whole SDXL checkpoint (load it with Load Checkpoint)"),
    (r"^first_stage_model\.", "a whole Stable Diffusion checkpoint (load it with Load Checkpoint)"),
    (r"^(model\.)?(diffusion_model\.)?input_blocks\.", "an SDXL UNet in the original, not the diffusers, layout"),
    (
        r"^(model\.)?(down_blocks|up_blocks|mid_block)\..*attn2|^add_embedding\.",
        "a diffusers UNet (SDXL's is loaded with Load FaceCLIP Diffusion Model)",
    ),
    (
        r"^(model\.)?(diffusion_model\.)?(double_blocks|single_blocks|transformer_blocks)\.",
        "a diffusion transformer such as FLUX or SD3",
    ),
    (r"^(encoder|decoder)\.(down|up|mid|conv_in|\d)|^(post_)?quant_conv\.", "a VAE (load it with Load VAE)"),
    (r"^(text_model|vision_model|visual|cond_stage_model)\.", "a CLIP model"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
)


def read_state_dict(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, dict[str, str]]:
    """Open a `.safetensors` or weights-only `.pt` file.

    A small file is read whole. The bytes of a large one (see mapped) are mapped, and read from disk when first used.
    Returns the unwrapped tensors and the safetensors header's metadata. progress(done, total) is called per tensor
    and may raise to cancel. Raises CheckpointError for a file that is missing, damaged, unsafe, no checkpoint, or
    that claims more than its bytes hold.
    """
    path = Path(path)
    try:
        head, data = _open(path)
        # The content decides, not the name: a safetensors header begins with a bracket, torch's files with PK or \x80.
        if head[8:9] == b"{" or (path.suffix.lower() == ".safetensors" and not head.startswith((b"PK", b"\x80"))):
            state, metadata = _read_safetensors(path, data)
        elif head.startswith((b"PK", b"\x80")):
            state, metadata = read_torch(path, data), {}
        elif head.startswith(b"GGUF"):
            raise CheckpointError(f"{shown(path.name)} {GGUF}")
        else:
            begins = f"begins with {head!r}" if head else "is empty"
            raise CheckpointError(
                f"{shown(path.name)} ({size_of(path)}) is no checkpoint: it {begins}. Wanted: a .safetensors file or a "
                ".pt state dict. If it is small, a link or a web page was saved in its place; download it again."
            )
        state = unwrap(state, path)
        check_tensors(state, path)
    except OSError as error:
        raise CheckpointError(
            f"{shown(path)} cannot be opened ({error.strerror or error}). Check who may read it."
        ) from error
    if progress:
        for i in range(len(state)):
            progress(i + 1, len(state))
    return state, metadata


def _open(path: Path) -> tuple[bytes, bytes | None]:
    """A file's first bytes, and of a small one all of them."""
    if path.is_dir():
        raise CheckpointError(f"{shown(path)} is a folder, wanted a model file. Choose a file in it.")
    if not path.is_file():  # nor a pipe or a device, which have no end
        raise CheckpointError(f"There is no file {shown(path)}. Check the name, or download the file first.")
    with open(path, "rb") as file:
        head = file.read(16)
        if os.fstat(file.fileno()).st_size > mapped.COPIED:
            return head, None
        return head, head + file.read()


def _read_safetensors(path: Path, data: bytes | None) -> tuple[State, dict[str, str]]:
    import safetensors.torch

    try:
        header = read_header(path)
        if data is not None:
            return safetensors.torch.load(data), header.metadata
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, header.metadata
    except OSError:
        raise
    except Exception as error:  # a damaged header can make the reader raise anything
        words = str(error) if isinstance(error, Damage) else f"is damaged: {first_line(error)}"
        raise CheckpointError(
            f"{shown(path.name)} ({size_of(path)}) is not a whole safetensors file: it {words}. "
            "It is truncated, damaged or of another kind; download it again."
        ) from error


def unwrap(state: object, path: str | os.PathLike) -> State:
    """Take the tensors out of the wrappers that trainers put around them ({"state_dict": {...}} and the like)."""
    name = shown(Path(path).name)
    for _ in range(_WRAPPED_AT_MOST):
        inner = [state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)] if isinstance(state, dict) else []
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, dict):
        raise CheckpointError(f"{name} holds a {shown(type(state).__name__)}, wanted a state dict (names and tensors).")
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{name} holds no weights: none of its {len(state)} entries is a named tensor. Choose a model's file."
        )
    longest = max(map(len, tensors))
    if len(tensors) > MOST_KEYS or longest > LONGEST_KEY:
        raise CheckpointError(
            f"{name} names {len(tensors)} weights, the longest with {longest} characters; wanted at most {MOST_KEYS}, "
            f"of {LONGEST_KEY} characters. It is no model's file; choose another."
        )
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
    named = ", ".join(map(shown, keys[:_NAMED_KEYS]))
    return named if len(keys) <= _NAMED_KEYS else f"{named}, ... ({len(keys)} in all)"


def spell_out(
    shapes: Iterable[tuple[str, tuple[int, ...]]], state: State, name: str, what: str
) -> dict[str, tuple[int, ...]]:
    """The keys and shapes that a file's header promises, as a table.

    They are counted on the way: a few words in a header can promise millions of layers. Raises CheckpointError where
    the file holds far fewer weights than that.
    """
    most = 2 * len(state) + _MAY_BE_MISSING
    found = dict(itertools.islice(shapes, most + 1))
    if len(found) > most:
        raise CheckpointError(
            f"{name} does not fit {what}: that has more than {most} weights, and the file holds {len(state)}. Nothing "
            "was loaded. The file is damaged or belongs to another model; download it again or choose another."
        )
    return found


def report_mismatch(state: State, shapes: dict[str, tuple[int, ...]], name: str, what: str) -> None:
    """Raise CheckpointError unless `state` has exactly these keys and shapes.

    name: the file's name. what: the model wanted, in words. The first few missing, unexpected and mis-shaped keys are
    named with their counts; a file that shares no key with the model is named as what it is.
    """
    missing = [key for key in shapes if key not in state]
    extra = sorted(key for key in state if key not in shapes)  # safetensors has no order of its own
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


def check_finite(state: State, name: str, progress: Progress | None = None) -> None:
    """Raise CheckpointError naming the weights that hold NaN or infinity, or are no dense floating point numbers.

    This is where a mapped file is really read: progress(done, total) is called per tensor and may raise to cancel.
    """
    odd = {
        key: value.dtype
        for key, value in state.items()
        if value.layout != torch.strided
        or value.is_meta
        or not (value.is_floating_point() or key.endswith("num_batches_tracked"))
    }
    if odd:
        kinds = ", ".join(sorted({str(kind).removeprefix("torch.") for kind in odd.values()}))
        raise CheckpointError(
            f"{name} stores {len(odd)} weights in a form that cannot be used ({kinds}): {_some(odd)}. "
            "Wanted: plain floating point weights. A quantised file cannot be used; choose the original."
        )
    bad = []
    for i, (key, value) in enumerate(state.items()):
        if value.is_floating_point() and not _is_finite(value):
            bad.append(key)
        if progress:
            progress(i + 1, len(state))
    if bad:
        raise CheckpointError(
            f"{name} has NaN or infinite values in {len(bad)} weights: {_some(bad)}. "
            "Pictures made with it would be black or noise; download the file again."
        )


def _is_finite(value: torch.Tensor) -> bool:
    # A sum carries any NaN or infinity along, without a mask as large as the weight; it may overflow by itself. Summed
    # in parts: in another dtype it takes a copy.
    return all(
        bool(torch.isfinite(part.sum(dtype=torch.float32))) or bool(torch.isfinite(part.float()).all())
        for part in value.reshape(-1).split(_SUMMED_AT_ONCE)
    )


def equal_states(a: State, b: State) -> bool:
    """True where both have the same keys and equal values, tensor by tensor."""
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


_FORMAT_NAMES = {
    torch.uint8: "U8",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
}


def write_safetensors(
    state: State,
    path: str | os.PathLike,
    metadata: dict[str, str],
    force: bool = False,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a file that is there whole or not at all.

    dtype: what floating point weights are stored in, or what each one is; None as they are. One tensor at a time is
    converted and written, so a file larger than memory can be made; progress(done, total) is called for each and may
    raise to cancel.
    Raises NameTakenError where the file exists, or came meanwhile, and `force` is not set; CheckpointError where
    weights do not fit the dtype's range, and where the disk is full or refuses. Then nothing is left behind.
    """
    path = Path(path)
    if os.path.exists(path) and not force:  # unlike Path.exists, no error for an impossible name
        raise _taken(path)
    stored = dict(dtype) if isinstance(dtype, Mapping) else _stored(state, dtype)
    check_range(state, stored, path.name)
    header, order, size = _header(state, stored, metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, len(header) + size)
        with whole.writing(path, replace=force) as file:
            file.write(header)
            for i, key in enumerate(order):
                value = state[key].detach().to("cpu", stored[key]).contiguous()
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)
                if progress:
                    progress(i + 1, len(order))
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise _taken(path) from error
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. Nothing was left behind. "
            "Check the disk's free space and the folder's rights, or choose another place."
        ) from error


def _stored(state: State, dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    return {key: dtype if dtype and value.is_floating_point() else value.dtype for key, value in state.items()}


def _taken(path: Path) -> NameTakenError:
    return NameTakenError(f"{path} exists already. Choose another name, or overwrite it with --force.")


def check_range(state: State, stored: dict[str, torch.dtype], name: str) -> None:
    """Raise CheckpointError naming the weights that become infinite in the dtype they are to be stored in."""
    too_large = [
        key
        for key, value in state.items()
        if value.is_floating_point()
        and torch.finfo(value.dtype).max > torch.finfo(stored[key]).max
        and not torch.isfinite(value.to(stored[key]).float()).all()
    ]
    if too_large:
        kind = str(stored[too_large[0]]).removeprefix("torch.")
        raise CheckpointError(
            f"{len(too_large)} weights are too large for {kind} (largest {torch.finfo(stored[too_large[0]]).max:g}) "
            f"and would become infinite: {_some(too_large)}. {name} was not written. Use bf16 or fp32."
        )


def _header(state: State, stored: dict[str, torch.dtype], metadata: dict[str, str]) -> tuple[bytes, list[str], int]:
    """The safetensors header, the order of the tensors behind it, and their size in bytes."""
    # Wide numbers first, so that each tensor begins at a multiple of its own width.
    order = sorted(state, key=lambda key: (-stored[key].itemsize, key))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for key in order:
        begin, end = end, end + state[key].numel() * stored[key].itemsize
        if stored[key] not in _FORMAT_NAMES:
            raise CheckpointError(
                f"{key} is {stored[key]}, which cannot be stored. Wanted: floating point weights or bytes."
            )
        entries[key] = {
            "dtype": _FORMAT_NAMES[stored[key]],
            "shape": list(state[key].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order, end


def _check_space(path: Path, wanted: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < wanted:
        raise CheckpointError(
            f"{path} needs {wanted:,} bytes, and {free:,} are free in {path.parent}. Nothing was "
            "written. Make room, or choose another place."
        )
