"""What our nodes use of ComfyUI's insides: model folders, model management, progress and Cancel.

What merging, sampling and loading the UNet use of them is in the other files called host_. Classes are looked up when
used: ComfyUI swaps some of them while it starts.
"""

import copy
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import torch

from ..faceclip.errors import InputError, ModelNotFoundError
from ..faceclip.faces.face import Face
from ..faceclip.files.mapped import Source
from ..faceclip.files.state_dict import GGUF
from ..faceclip.identity.person import Person, make_person
from ..faceclip.install import published
from ..faceclip.install.places import FOLDERS, searched
from ..faceclip.model import checkpoint
from ..faceclip.model.encoder import FACES_AT_ONCE, Identity, JointConditioning
from ..faceclip.model.families import family_of_config
from ..faceclip.small.pictures import place_examples

log = logging.getLogger(__name__)

# Room for the largest layer cast to float32 (85 M weights), and for each face on its way.
_BASE_MEMORY = 512 * 2**20
_FACE_MEMORY = 48 * 2**20


def register_folders() -> None:
    """Tell the host of our model folders; folders that users named in extra_model_paths.yaml are kept."""
    for key, kind in FOLDERS.items():
        if kind.ours:
            folder_paths.add_model_folder_path(key, os.path.join(folder_paths.models_dir, kind.below[0]))
            paths, known = folder_paths.folder_names_and_paths[key]
            # With no extensions the host would list every file.
            folder_paths.folder_names_and_paths[key] = (paths, set(known) | set(kind.extensions))


def furnish() -> None:
    """Make our model folders, where users look for them, and put the examples' pictures into the input folder."""
    try:
        for kind in FOLDERS.values():
            if kind.ours:
                os.makedirs(os.path.join(folder_paths.models_dir, kind.below[0]), exist_ok=True)
        if os.path.isdir(folder_paths.get_input_directory()):
            place_examples(Path(folder_paths.get_input_directory()))
    except OSError as error:  # a read-only installation works all the same
        log.warning("Folders and pictures of the examples were not made: %s", error)


def models_folder() -> str:
    """The host's own folder of models."""
    return folder_paths.models_dir


def list_files(folder: str) -> list[str]:
    """The host's list for a combo."""
    return folder_paths.get_filename_list(folder)


def folders(folder: str) -> list[str]:
    """Every folder the host searches for this key."""
    return folder_paths.get_folder_paths(folder)


def find_file(folder: str, name: str, wanted: tuple[published.PublishedFile, ...] = ()) -> str:
    """Full path of a file that the host lists under `folder`, or of the one that stands in for it.

    Raises ModelNotFoundError with every folder searched, the files wanted, where to get them and their licence.
    """
    there = published.same_model(name, list_files(folder))
    path = folder_paths.get_full_path(folder, there) if there else None
    if there not in (None, name):
        log.info("%s is used for %s: it is the same model.", there, name)
    if path is None:
        raise ModelNotFoundError(missing_file(folder, name, wanted))
    return path


def missing_file(folder: str, name: str, wanted: tuple[published.PublishedFile, ...] = ()) -> str:
    """What to tell a user whose file is not there, or is of a kind that the host does not list for us."""
    if name.lower().endswith(".gguf"):
        return f"{name!r} {GGUF}"
    sources = "\n".join(f"  {file.name}: {file.about}, from {file.url}; licence {file.licence}" for file in wanted)
    there = ", ".join(list_files(folder)[:8]) or "no model file"
    commands = "".join(f"In the pack's folder: {published.download_command(file)}\n" for file in wanted)
    return (
        f"{name!r} is not among the host's {folder} models.\n{searched(folders(folder))}\nFound there: {there}.\n"
        + (f"Files wanted:\n{sources}\n{commands}" if sources else "")
        + "Put the file into one of these folders (or name yours in extra_model_paths.yaml) and press R to refresh."
    )


def check_file(folder: str, name: str | None, wanted: tuple[published.PublishedFile, ...]) -> bool | str:
    """For a node's validate_inputs: True, or the message. name is None where the input is linked."""
    if name is None or published.same_model(name, list_files(folder)):
        return True
    return missing_file(folder, name, wanted)


def modified(folder: str, name: str | None) -> str:
    """Changes when the file does, so that the host does not reuse what it read before."""
    path = folder_paths.get_full_path(folder, name) if name else None
    try:
        seen = os.stat(path) if path else None
    except OSError:  # it went just now
        seen = None
    return f"{path} {seen.st_size} {seen.st_mtime_ns}" if seen else ""


def pick(
    images: list[torch.Tensor], latents: list[dict[str, Any]] | None, kept: list[int]
) -> tuple[list[Any], list[Any]]:
    """Some of the pictures of all batches, and their latents, in the order of `kept` (numbers across all batches).

    Of one batch a list of one batch, of several a list of single pictures, which may differ in size. Without latents
    the second list holds None. Raises InputError where latents and pictures do not belong together.
    """
    if latents is not None and len(latents) != len(images):
        raise InputError(
            f"{len(images)} batches of pictures came in and {len(latents)} of latents, wanted one each. Wire what was "
            "decoded to these pictures."
        )
    if len(images) == 1:
        picked = None if latents is None else pick_latents(latents[0], kept, len(images[0]))
        return [images[0][kept]], [picked]
    places = [(batch, row) for batch, pictures in enumerate(images) for row in range(len(pictures))]
    chosen = [places[number] for number in kept]
    pictures = [images[batch][[row]] for batch, row in chosen]
    if latents is None:
        return pictures, [None]
    return pictures, [pick_latents(latents[batch], [row], len(images[batch])) for batch, row in chosen]


def pick_latents(latent: dict[str, Any], rows: list[int], pictures: int) -> dict[str, Any]:
    """Some rows of a LATENT, with everything that belongs to them; raises InputError where the numbers differ."""
    count = len(latent["samples"])
    if count != pictures:
        raise InputError(f"There are {count} latents for {pictures} pictures, wanted one each. Wire the same batch.")
    picked = {
        key: value[rows] if isinstance(value, torch.Tensor) and len(value) == count else value
        for key, value in latent.items()
    }
    index = latent.get("batch_index")
    return picked if index is None else {**picked, "batch_index": [index[i] for i in rows]}


class Progress:
    """Shows (done, total) in the host's bar, and lets Cancel stop the work."""

    def __init__(self):
        self._bar = None

    def __call__(self, done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total)


class ManagedFaceCLIP:
    """An encoder of either family under the host's model management: what the FACECLIP type carries.

    The host loads it before use, may push it out for the UNet or keep a part of it in RAM, and frees it with the last
    reference. `.patcher` is the name the host's RAM cache looks for.
    """

    def __init__(self, path: str, dtype: torch.dtype | None, progress: Callable[[int, int], None]):
        source = Source.of(path)
        state, config = checkpoint.read_faceclip(path, progress, dtype)
        self.family = family_of_config(config)
        offload = mm.text_encoder_offload_device()
        load = mm.text_encoder_device()
        self.name = os.path.basename(path)
        self.model = checkpoint.build(
            state,
            config,
            self.name,
            offload,
            dtype,
            comfy.ops.manual_cast,
            before_load=getattr(mm, "archive_model_dtypes", None),
            source=source,
        )
        self.model.compute_device = load
        self._encoder_hash = None
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher(self.model, load_device=load, offload_device=offload)

    @property
    def config(self):
        return self.model.config

    @property
    def encoder_hash(self) -> str:
        """The face encoder's hash, taken once."""
        if self._encoder_hash is None:
            self._encoder_hash = checkpoint.face_encoder_hash(self.model)
        return self._encoder_hash

    def encode_identity(self, faces: torch.Tensor) -> Identity:
        """Identity of float [B, 3, H, W] aligned faces, on the host's intermediate device."""
        self.load(min(len(faces), FACES_AT_ONCE) * _FACE_MEMORY)
        return self.model.encode_identity(faces, Progress()).to(mm.intermediate_device())

    def make_person(self, faces: list[Face], weights: Any, outliers: str, min_similarity: float) -> tuple[Person, str]:
        """One person of all crops of `faces`, which may differ in size, and the table of their similarities."""
        identity = Identity.cat([self.encode_identity(face.crops) for face in faces])
        crops = [crop for face in faces for crop in face.crops]
        made, table = make_person(identity, crops, weights, outliers, min_similarity)
        return replace(made, encoder=self.encoder_hash), table

    def encode_prompt(self, prompts: list[str], identity: Identity | None = None, **options: Any) -> JointConditioning:
        """Conditioning of `JointEncoder.encode_prompt`, on the host's intermediate device."""
        return self._prompt_pass(self.model.encode_prompt, prompts, identity, options)

    def encode_tokens(self, rows: list[Any], identity: Identity | None = None, **options: Any) -> JointConditioning:
        """The same of `JointEncoder.encode_tokens`."""
        return self._prompt_pass(self.model.encode_tokens, rows, identity, options)

    def _prompt_pass(
        self, encode: Any, prompts: list[Any], identity: Identity | None, options: dict[str, Any]
    ) -> JointConditioning:
        mm.throw_exception_if_processing_interrupted()
        self.load(self.family.prompt_memory * len(prompts))
        joint = encode(prompts, identity, **options)
        device = mm.intermediate_device()
        pooled = None if joint.pooled is None else joint.pooled.to(device)
        return JointConditioning(joint.embeddings.to(device), pooled)

    def under(self, patcher: Any) -> "ManagedFaceCLIP":
        """The same encoder, loaded by a clone of its patcher."""
        other = copy.copy(self)
        other.patcher = patcher
        return other

    def load(self, memory: int = 0) -> None:
        """memory: bytes that the pass needs beside the weights."""
        self.model.check_source()  # before the host reads the weights to move them
        mm.load_models_gpu([self.patcher], memory_required=_BASE_MEMORY + memory)
