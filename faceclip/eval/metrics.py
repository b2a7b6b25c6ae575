"""Measures of one picture: likeness to its person, and agreement with its text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from ..bulk.grid import GridCell, GridIdentity
from ..bulk.store import read_picture
from ..errors import FaceCLIPError, InputError
from ..faces.detect.base import Detector
from ..faces.face import find_faces
from ..identity.file import load_person
from ..identity.judge import Judge
from ..identity.likeness import NO_FACE_AVERAGED, find_likeness

FACES = "faces"  # column: how many faces the picture shows


class Metric(Protocol):
    """column: the name in the table; about: a sentence for the reader of the page."""

    column: str
    about: str

    def signature(self, cell: GridCell) -> str:
        """All that the value depends on, beside the picture."""
        ...

    def measure(self, cell: GridCell, picture: np.ndarray) -> dict[str, float]:
        """Values by column. picture: uint8 [H, W, 3], RGB."""
        ...


class Similarity:
    """ID similarity: cosine, -1 to 1, of the most similar face in a picture to the person's reference.

    The reference is the normalised mean of the embeddings of the largest face
    in each photo, or what the saved identity holds. version: tells one judge's weights from another's. Raises
    InputError or NoFaceError that names the identity whose photos cannot be used.
    """

    def __init__(
        self,
        judge: Judge,
        detector: Detector,
        identities: Sequence[GridIdentity],
        column: str = "similarity",
        version: str = "",
    ):
        self.column, self._judge, self._detector, self._version = column, judge, detector, version
        self._references = {identity.name: self._reference(identity) for identity in identities}
        self.about = (
            f"{column}: cosine of the most similar face to the person, by {judge.name}, faces found by "
            f"{detector.name}. A picture without a face counts as {NO_FACE_AVERAGED:g}, a stranger's."
        )

    def _reference(self, identity: GridIdentity) -> torch.Tensor:
        try:
            if identity.identity is not None:
                return self._judge.reference(load_person(identity.identity))
            embedded = [self._judge.embed(self._crop(path)) for path in identity.pictures]
        except FaceCLIPError as error:
            raise InputError(f"The person {identity.name!r} cannot be compared with: {error}") from error
        return torch.nn.functional.normalize(torch.cat(embedded).mean(dim=0), dim=-1)

    def _crop(self, path: Path) -> torch.Tensor:
        try:
            return find_faces(_tensor(read_picture(path)), self._detector).crops[:1]
        except FaceCLIPError as error:
            raise InputError(f"{path}: {error}") from error

    def signature(self, cell: GridCell) -> str:
        numbers = self._references[cell.identity.name].numpy().tobytes().hex()
        return "\n".join((self.column, self._judge.name, self._version, self._detector.name, numbers))

    def measure(self, cell: GridCell, picture: np.ndarray) -> dict[str, float]:
        reference = self._references[cell.identity.name]
        faces = find_likeness(_tensor(picture), reference, self._detector, self._judge)[0]
        return {self.column: faces[0].similarity if faces else NO_FACE_AVERAGED, FACES: float(len(faces))}


@dataclass(frozen=True)
class Clip:
    """A CLIP of open_clip with its own preprocessing. model: one of its classes. name: for the reader."""

    model: Any
    preprocess: Callable
    tokenizer: Callable
    name: str
    device: str = "cpu"

    @torch.no_grad()
    def image_features(self, picture: np.ndarray) -> torch.Tensor:
        """uint8 [H, W, 3] -> [1, W], not normalised."""
        from PIL import Image

        pixels = self.preprocess(Image.fromarray(picture))[None].to(self.device)
        return self.model.encode_image(pixels).float().cpu()

    @torch.no_grad()
    def text_features(self, text: str) -> torch.Tensor:
        """[1, W], not normalised. What does not fit into the context is cut off, as open_clip does."""
        return self.model.encode_text(self.tokenizer([text]).to(self.device)).float().cpu()


def load_clip(model: str, weights: str | None = None, device: str = "cpu", download: bool = False) -> Clip:
    """A CLIP for measuring.

    model: a folder with open_clip_config.json and weights, or the name of one of open_clip's architectures; weights:
    a file for that architecture. With `download` also what open_clip fetches: a tag as weights ("openai"), or a model
    "hf-hub:OWNER/NAME". Raises InputError, before any download that was not asked for.
    """
    import open_clip

    if (Path(model) / "open_clip_config.json").is_file():
        model, weights = f"local-dir:{Path(model)}", None
    elif not download and (model.startswith("hf-hub:") or _fetches(model, weights)):
        raise InputError(
            f"The CLIP {model!r} with weights {weights!r} is not on this machine as a file. Name a file as weights, or "
            "a folder with open_clip_config.json as model; or allow a download with --download."
        )
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=weights, device=device)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, torch, safetensors and the hub each have their own
        raise InputError(f"The CLIP {model!r} with weights {weights!r} cannot be loaded: {error}") from error
    # Names only: the page may be shown to others, whom this machine's folders do not concern.
    name = Path(model.removeprefix("local-dir:")).name if weights is None else f"{model} ({Path(weights).name})"
    return Clip(network.eval(), cast(Callable[..., torch.Tensor], preprocess), tokenizer, name, device)


def _fetches(model: str, weights: str | None) -> bool:
    """Whether open_clip would go to the network for one of its architectures."""
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise InputError(
            f"The CLIP {model!r} is neither a folder with open_clip_config.json nor an architecture of open_clip, such "
            "as ViT-L-14."
        )
    text = config.get("text_cfg", {})
    return weights is None or not Path(weights).is_file() or "hf_model_name" in text or "hf_tokenizer_name" in text


class ClipScore:
    """CLIP score: 100 x cosine of picture and prompt, 0 where it is negative (arXiv 2104.08718, without its 2.5)."""

    column = "clip_score"

    def __init__(self, clip: Clip, version: str = ""):
        self._clip, self._version = clip, version
        self._texts: dict[str, torch.Tensor] = {}
        self.about = f"{self.column}: 100 x cosine of picture and prompt, at least 0, by {clip.name}."

    def signature(self, cell: GridCell) -> str:
        return "\n".join((self.column, self._clip.name, self._version, cell.prompt.text))

    def measure(self, cell: GridCell, picture: np.ndarray) -> dict[str, float]:
        text = self._texts.get(cell.prompt.text)
        if text is None:
            text = self._texts[cell.prompt.text] = self._clip.text_features(cell.prompt.text)
        cosine = torch.nn.functional.cosine_similarity(self._clip.image_features(picture), text)
        return {self.column: max(0.0, 100.0 * float(cosine))}


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture)[None].float().div_(255)  # HWC -> BHWC
