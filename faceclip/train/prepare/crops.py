"""One photo to one sample: read, upright, its faces found, measured, chosen and aligned; or why it cannot be used."""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError, shown
from ...faces import quality
from ...faces.align import CROP_SIZE, align
from ...faces.detect.base import Detection, Detector
from ...faces.face import DEFAULT_MIN_SCORE, sort_faces
from ...files.picture import FORMATS, open_picture, upright_rgb
from ...install import extras
from ..buckets import SDXL_RESOLUTION, LeftOut, bucket
from .photos import Photo, Unfit, caption, check_inside

_JPEG_QUALITY = 95
_KEPT = {"JPEG": "jpg", "PNG": "png"}  # formats that may go into a sample byte for byte


@dataclass(frozen=True)
class Filter:
    """What a photo and its faces must reach."""

    min_side: int = 512  # shorter side of the photo, px
    max_side: int = 2048  # a photo with a longer side is made smaller, px
    resolution: int = SDXL_RESOLUTION  # of stage B, whose picture the photo must fill as it then is; 0 for any
    min_face: float = 64.0  # shorter side of a face's box, px of the photo as it came
    min_score: float = DEFAULT_MIN_SCORE  # the detector's, 0 to 1
    min_sharpness: float = quality.BLURRED  # see faceclip.faces.quality, and for max_yaw
    max_yaw: float = quality.SIDEWAYS  # degrees to either side
    max_faces: int = 4  # the largest are kept

    def __post_init__(self):
        limits = {
            "min_side": (1, 100_000),
            "max_side": (64, 100_000),
            "resolution": (0, 100_000),
            "min_face": (1, 100_000),
            "min_score": (0, 1),
            "min_sharpness": (0, math.inf),
            "max_yaw": (0, 90),
            "max_faces": (1, 1000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}, wanted a number from {low} to {high}.")


@dataclass(frozen=True)
class Reject:
    """A photo, or a face of it (counted from 1, the largest first), that was left out, why, and as what kind."""

    source: str
    face: int | None
    reason: str
    kind: str


Sample = dict[str, bytes]  # by suffix: jpg or png, face0.png, ..., json


def prepare_photo(photo: Photo, detector: Detector, wanted: Filter) -> tuple[Sample | None, list[Reject]]:
    """The sample of one photo, None where it cannot be used; and what was left out of it. Raises nothing of its own."""
    rejects: list[Reject] = []
    try:
        check_inside(photo.path, photo.folder)
        text = caption(photo)
        pixels, suffix, kept = _read(photo.path)
        height, width = pixels.shape[:2]
        if min(width, height) < wanted.min_side:
            raise Unfit(
                "small photo", f"the photo is {width} x {height} px, at least {wanted.min_side} px a side are wanted"
            )
        size = _within((width, height), wanted.max_side)
        if wanted.resolution:
            bucket(size, wanted.resolution)
        faces = _choose(photo, pixels, detector, wanted, rejects)
        return _sample(photo, text, pixels, (suffix, kept), faces, size), rejects
    except (InputError, LeftOut) as error:
        reason, kind = str(error), _kind(error)
    except MemoryError:
        kind = "too large"
        reason = "not enough memory for a photo of this size"
    except Exception as error:  # one photo must not end the run; whatever its libraries raised is told
        kind = "unusable"
        reason = f"it cannot be used: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return None, [*rejects, Reject(photo.source, None, reason, kind)]


def _kind(error: Exception) -> str:
    if isinstance(error, LeftOut):
        return "small photo"
    return error.kind if isinstance(error, Unfit) else "unreadable file"


@dataclass(frozen=True)
class _Chosen:
    detection: Detection
    crop: np.ndarray  # uint8 [448, 448, 3]
    sharpness: float
    yaw: float


def _choose(photo: Photo, pixels: np.ndarray, detector: Detector, wanted: Filter, rejects: list[Reject]):
    seen = detector.detect(pixels, wanted.min_face)
    found = sort_faces([one for one in seen if one.score >= wanted.min_score])
    if not found:
        best = max((one.score for one in seen), default=None)
        unsure = "" if best is None else f"; the best guess has the score {best:.2f}, {wanted.min_score} is wanted"
        raise Unfit("no face", f"no face was found{unsure}")
    chosen: list[_Chosen] = []
    for number, one in enumerate(found, 1):
        try:
            if len(chosen) == wanted.max_faces:
                raise Unfit(
                    "more faces than wanted",
                    f"the photo has more than {wanted.max_faces} faces, and this is one of the smaller",
                )
            chosen.append(_measure(pixels, one, wanted))
        except InputError as error:
            rejects.append(Reject(photo.source, number, str(error), _kind(error)))
    if not chosen:
        raise Unfit(
            "no good face",
            "its only face cannot be used" if len(found) == 1 else f"none of its {len(found)} faces is good",
        )
    return chosen


def _measure(pixels: np.ndarray, one: Detection, wanted: Filter) -> _Chosen:
    smaller = min(one.width, one.height)
    if smaller < wanted.min_face:
        raise Unfit("small face", f"the face is only {smaller:.0f} px wide, at least {wanted.min_face:g} px are wanted")
    turned = quality.yaw(one.landmarks)
    if abs(turned) > wanted.max_yaw:
        raise Unfit(
            "turned face", f"the head is turned by {abs(turned):.0f} degrees, at most {wanted.max_yaw:g} are wanted"
        )
    sharp = quality.sharpness(align(pixels, one.landmarks, 112))
    if sharp < wanted.min_sharpness:
        raise Unfit(
            "blurred face", f"the face is blurred: sharpness {sharp:.3f}, at least {wanted.min_sharpness:g} is wanted"
        )
    crop = (align(pixels, one.landmarks, CROP_SIZE) * 255).round().astype(np.uint8)
    return _Chosen(one, crop, sharp, turned)


def _heif(path: Path) -> tuple[str, ...]:
    """What else Pillow shall read for this file, once its reader is there."""
    if not path.suffix.lower().startswith(".hei"):
        return ()
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        line = extras.install_line("train")
        raise Unfit("no reader", f"HEIC photos need pillow-heif ({error}), which {line} brings") from None
    register_heif_opener()
    return ("HEIF",)


def _read(path: Path) -> tuple[np.ndarray, str, bytes | None]:
    """Pixels uint8 [H, W, 3], upright; the suffix; and the file's bytes if they may be kept as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unfit("unreadable file", f"the file cannot be read: {error.strerror}") from None
    if not data:
        raise Unfit("unreadable file", "the file is empty")
    picture = open_picture(data, "the file", formats=(*FORMATS, *_heif(path)))
    kind = picture.format or ""
    as_it_is = kind in _KEPT and picture.mode == "RGB" and picture.getexif().get(0x0112, 1) == 1
    as_it_is = as_it_is and getattr(picture, "n_frames", 1) == 1
    try:
        pixels = np.asarray(upright_rgb(picture))
    except Exception as error:  # as in open_picture: EXIF data can be damaged too
        raise Unfit("unreadable file", f"the file is damaged or no picture: {shown(error)}") from None
    return pixels, _KEPT[kind] if as_it_is else "jpg", data if as_it_is else None


def _within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    side = max(*size, max_side)
    return max(1, round(size[0] * max_side / side)), max(1, round(size[1] * max_side / side))


def _sample(photo: Photo, text: str, pixels: np.ndarray, kept, faces: list[_Chosen], size: tuple[int, int]) -> Sample:
    from PIL import Image

    height, width = pixels.shape[:2]
    suffix, data = kept
    if size != (width, height):
        data, suffix = None, "jpg"
    if data is None:
        data = _encode(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), "JPEG")
    scale = np.array(size) / (width, height)
    sample = {suffix: data}
    for number, one in enumerate(faces):
        sample[f"face{number}.png"] = _encode(Image.fromarray(one.crop), "PNG")
    described = {
        "caption": text,
        "faces": [_describe(one, scale) for one in faces],
        "size": list(size),
        "source": photo.source,
    }
    sample["json"] = json.dumps(described, ensure_ascii=False).encode()
    return sample


def _describe(one: _Chosen, scale: np.ndarray) -> dict:
    def px(points) -> list:
        # Pixel centres have whole numbers, resizing keeps pixel edges.
        return np.round((np.asarray(points, dtype=np.float64) + 0.5) * scale - 0.5, 2).tolist()

    box = px(np.reshape(one.detection.box, (2, 2)))
    return {
        "box": [*box[0], *box[1]],
        "landmarks": px(one.detection.landmarks),
        "score": round(one.detection.score, 4),
        "sharpness": round(one.sharpness, 4),
        "yaw": round(one.yaw, 1),
    }


def _encode(picture, kind: str) -> bytes:
    out = io.BytesIO()
    # Huffman codes alone: an eighth of the time of the usual search for repetitions, which photos have none of.
    how = {"quality": _JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {"compress_type": 2}
    picture.save(out, kind, **how)
    return out.getvalue()
