"""The model files: which folders are searched, what lies there, and whether it is whole."""

import os
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import CheckpointError, shown
from ..files.header import Damage, header_text, read_header
from ..identity.header import KIND, VERSION, check_header
from ..install import places, published
from .finding import OK, PROBLEM, WARN, Finding, one_line, size_text

_LARGEST_DETECTOR = 64 * 2**20  # bytes; YuNet has 0.2 MB
# Keys in the headers of diffusion models in diffusers' format and of FaceT5's encoder, by which one is known whatever
# its file is called; and how the names of FaceT5's files begin.
_UNET_KEY, _FLUX_KEY = b'"conv_in.weight"', b'"single_transformer_blocks.0.attn.to_q.weight"'
_T5_KEY = b'"t5_encoder.block.0.ff_layer.wo.weight"'
_T5_NAMES, _FLUX_NAMES = ("face_t5", "facet5"), ("dit", "facet5")

# What a damaged file can make its readers raise; not all there is, since what cancels must go through.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)

Progress = Callable[[int, int], None]


def check_files(
    folders: Mapping[str, Sequence[str | Path]], check_hashes: bool, progress: Progress | None = None
) -> list[Finding]:
    """Findings on every folder key: the folders, each file, and what is missing."""
    found = []
    for key, kind in places.FOLDERS.items():
        there, wanted = folders.get(key, []), kind.published
        listed = ", ".join(f"{place}{'' if os.path.isdir(place) else ' (does not exist)'}" for place in there)
        found.append(Finding(f"folder {key}", OK, listed or "none is set up"))
        paths = [path for place in there for path in _list_files(place, kind.extensions)]
        if wanted is None:
            if key == places.IDENTITIES:
                found += [_check_identity(path) for path in paths]
            elif key == "insightface":
                found += _check_packs(paths)
            continue
        if wanted is published.UNET:
            paths = [path for path in paths if _may_be_our_unet(path) or _is_flux(path)]
        checked = [_check_file(path, _meant(path, wanted), check_hashes, progress) for path in paths]
        found += checked
        if not checked:
            found.append(_missing(wanted, there))
    return [*found, *_facet5_halves(folders)]


def _missing(wanted: published.PublishedFile, there: Sequence[str | Path], level: str = PROBLEM) -> Finding:
    where = there[0] if there else f"models/{wanted.folder}"
    command = published.download_command(wanted)
    fix = f"{command}, or get it from {wanted.url} (licence: {wanted.licence}) and put it into {where}"
    return Finding(wanted.name, level, f"missing: {wanted.about}", fix)


def _facet5_halves(folders: Mapping[str, Sequence[str | Path]]) -> list[Finding]:
    """FaceT5 is nobody's duty; but who has a half of it wants the other, and FLUX's VAE."""

    def files(key: str) -> list[Path]:
        return [path for place in folders.get(key, []) for path in _list_files(place, (".safetensors", ".pt"))]

    encoder = any(_is_t5(path) for path in files("faceclip"))
    transformer = any(_is_flux(path) for path in files("diffusion_models"))
    found = []
    if transformer and not encoder:
        found.append(_missing(published.T5_ENCODER, folders.get("faceclip", [])))
    if encoder and not transformer:
        found.append(_missing(published.DIT, folders.get("diffusion_models", [])))
    if encoder and transformer and not any(path.name == published.FLUX_VAE.name for path in files("vae")):
        found.append(_missing(published.FLUX_VAE, folders.get("vae", []), WARN))
    return found


def _is_t5(path: Path) -> bool:
    return _is_known(path, _T5_NAMES, _T5_KEY)


def _is_flux(path: Path) -> bool:
    return _is_known(path, _FLUX_NAMES, _FLUX_KEY)


def _meant(path: Path, wanted: published.PublishedFile) -> published.PublishedFile:
    """The published file that one in this folder is, or was made of, by its name."""
    sibling = next((file for file in (published.T5_ENCODER, published.DIT) if file.name == path.name), None)
    return sibling or wanted


def find_damage(path: Path) -> str | None:
    """What is wrong with a model file, as far as its first and last bytes tell; None if nothing is.

    A truncated file is found without reading its weights: a safetensors header says where the file ends, and a zip
    (`.pt`) ends with its table of contents.
    """
    seen = path.stat()
    if not stat.S_ISREG(seen.st_mode):  # opened, it could wait for ever
        return "is no file but a pipe, a device or the like"
    size = seen.st_size
    with open(path, "rb") as file:
        head = file.read(64)
    if not size:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model"
    if head.lstrip().startswith(b"<"):
        return "is a web page, not the model"
    if path.suffix.lower() == ".onnx" or head.startswith(b"\x80"):  # nothing cheap tells where these end
        return None
    if head.startswith(b"PK"):
        try:
            zipfile.ZipFile(path).close()
        except zipfile.BadZipFile:
            return f"is truncated: its end is missing after {size_text(size)}"
        return None
    try:
        read_header(path, any_dtype=True)
    except Damage as error:
        return str(error)
    return None


def _list_files(folder: str | Path, endings: tuple[str, ...]) -> list[Path]:
    found, seen = [], set()
    if "\0" in str(folder):  # no system has such a folder, and Python has an error of its own for it
        return []
    for place, inner, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above it, and so on without end.
        try:
            here = os.stat(place)
        except OSError:  # it went just now
            continue
        if (here.st_dev, here.st_ino) in seen:
            inner.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if name.lower().endswith(endings)]
    return found


def _may_be_our_unet(path: Path) -> bool:
    """diffusion_models holds other people's models too; those are not the doctor's business."""
    return "faceclip" in path.name.lower() or _is_known(path, ("unet",), _UNET_KEY)


def _is_known(path: Path, beginnings: tuple[str, ...], key: bytes) -> bool:
    """By its name, or by a key in its header."""
    name = path.name.lower()
    if name.startswith(beginnings):
        return True
    try:
        return name.endswith(".safetensors") and path.is_file() and key in header_text(path)
    except (OSError, Damage):
        return False


def _check_file(path: Path, wanted: published.PublishedFile, check_hash: bool, progress: Progress | None) -> Finding:
    again = f'Delete "{path}" and get {wanted.name} again from {wanted.url}'
    try:
        damage = find_damage(path)
        size = path.stat().st_size
        named = path.name == wanted.name
        if damage is None and named and wanted.size not in (None, size):
            damage = f"has {size} bytes, the published file {wanted.size}: it is truncated or another file"
        if damage:
            return Finding(path.name, PROBLEM, f"{path} {damage}", again)
        text = f"{path}, {size_text(size)}"
        if wanted is published.YUNET:
            return _check_detector(path, text, again, progress if check_hash else None)
        if not check_hash or path.suffix.lower() == ".safetensors":  # what a user converted has no published hash
            return Finding(path.name, OK, f"{text}, {'hash not checked' if named else 'whole'}")
        digest = published.sha256(path, progress)
    except _UNREADABLE as error:
        text = f"{path} can't be read: {one_line(error)}"
        return Finding(path.name, PROBLEM, text, f'Make "{path}" readable, or delete it and get it again.')
    if published.identify(digest) is not None:
        return Finding(path.name, OK, f"{text}, SHA-256 as published")
    if named and wanted.sha256 is None:
        return Finding(path.name, OK, f"{text}, SHA-256 {digest}; that of the published file is not known here")
    if named:
        text += f", SHA-256 {digest} is not the published {wanted.sha256}: it is damaged or another file"
        return Finding(path.name, PROBLEM, text, again)
    return Finding(path.name, WARN, f"{text}, SHA-256 {digest}, which is none of the published files")


def _check_detector(path: Path, text: str, again: str, progress: Progress | None) -> Finding:
    """A YuNet file, small enough to be read whole each time: the nodes open the published one and those allowed."""
    if path.stat().st_size > _LARGEST_DETECTOR:
        return Finding(path.name, PROBLEM, f"{text}, which is no YuNet: that has {published.YUNET.size} bytes", again)
    digest = published.sha256(path, progress)
    if digest == published.YUNET.sha256:
        return Finding(path.name, OK, f"{text}, SHA-256 as published")
    if published.is_allowed(path, digest):
        return Finding(path.name, OK, f"{text}, not the published file, allowed by {published.allowance(path).name}")
    text += f", SHA-256 {digest} is not the published {published.YUNET.sha256}: it is damaged or another file"
    fix = f'{again}; if another detector is meant: python -m faceclip allow-detector "{path}"'
    return Finding(path.name, PROBLEM, text, fix)


def _check_packs(paths: list[Path]) -> list[Finding]:
    """InsightFace packs: one finding for each folder of .onnx files. They are optional."""
    if not paths:
        return [Finding("InsightFace pack", OK, "none, and none is needed: YuNet finds faces too")]
    found = []
    for folder in dict.fromkeys(path.parent for path in paths):
        files = [path for path in paths if path.parent == folder]
        damage = [f"{path.name} {problem}" for path in files if (problem := _readable_damage(path))]
        text = f"{folder}, {len(files)} .onnx files"
        fix = f'Delete "{folder}" and unzip the pack {folder.name} there again.'
        if damage:
            found.append(Finding(f"InsightFace pack {folder.name}", PROBLEM, f"{text}; {'; '.join(damage)}", fix))
        elif not any(path.name.startswith(("det_", "scrfd_")) for path in files):
            found.append(Finding(f"InsightFace pack {folder.name}", WARN, f"{text}, the detector is not there", fix))
        else:
            found.append(Finding(f"InsightFace pack {folder.name}", OK, text))
    return found


def _readable_damage(path: Path) -> str | None:
    try:
        return find_damage(path)
    except _UNREADABLE as error:
        return f"can't be read: {one_line(error)}"


def _check_identity(path: Path) -> Finding:
    """A saved identity, as far as its header and its length tell."""
    topic, metadata = f"identity {path.stem}", {}
    again = f'Delete "{path}" and save the identity again.'
    problem = _readable_damage(path)
    if problem:
        return Finding(topic, PROBLEM, f"{path} {problem}", again)
    try:
        metadata = read_header(path).metadata
        check_header(str(path), metadata)
    except (*_UNREADABLE, CheckpointError) as error:
        if metadata.get("kind") != KIND:
            return Finding(topic, WARN, one_line(error), f'Move "{path}" to the folder it belongs to.')
        newer = metadata.get("version") != str(VERSION)
        return Finding(topic, PROBLEM, one_line(error), "Update ComfyUI-FaceCLIP." if newer else again)
    made = f"made by {shown(metadata.get('created_by', 'an unknown version'))}"
    return Finding(topic, OK, f"{path}, references: {shown(metadata.get('references', 'unknown'))}, {made}")
