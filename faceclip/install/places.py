"""Where the detectors' files are looked for. Nothing here downloads, and nothing knows the host: folders come in."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import ModelNotFoundError
from .published import YUNET

YUNET_SOURCE = f"Get {YUNET.name} from {YUNET.url} (licence: {YUNET.licence})."

INSIGHTFACE_PACKS = ("antelopev2", "buffalo_l")
INSIGHTFACE_SOURCE = (
    "Get {name}.zip from the releases page of github.com/deepinsight/insightface (tag v0.7) and unzip it there "
    "(licence of the weights: non-commercial research only)."
)
_DETECTION_PATTERNS = ("det_*.onnx", "scrfd_*.onnx")


def find_yunet(folders: Iterable[str | Path]) -> Path:
    """The YuNet file in the first folder that has one, subfolders included: the 2023mar file, else any other YuNet.

    ModelNotFoundError lists every folder searched, the file wanted and where to get it.
    """
    folders = [Path(folder) for folder in folders]
    for pattern in (YUNET.name, "face_detection_yunet*.onnx"):
        for folder in folders:
            for path in sorted(folder.rglob(pattern)):
                if path.is_file():
                    return path
    raise ModelNotFoundError(
        f"The YuNet face detector was not found.\n{_searched(folders)}\nFile wanted: {YUNET.name}\n"
        f"{YUNET_SOURCE} Put it into {_first(folders, 'models/face_detection')}."
    )


def find_insightface(folders: Iterable[str | Path], name: str) -> Path:
    """The folder with the .onnx files of an InsightFace pack (`antelopev2`, `buffalo_l`, ...).

    Each of `folders` (the host's models/insightface, or the models folder in it) is searched for models/NAME and NAME,
    also doubled (NAME/NAME), as unzipping into a folder of that name leaves it.
    ModelNotFoundError lists every folder searched, the files wanted and where to get them.
    """
    folders = [Path(folder) for folder in folders]
    searched = []
    for folder in folders:
        for base in (folder / "models" / name, folder / name):
            for pack in (base, base / name):
                if detection_file(pack) is not None:
                    return pack
                searched.append(pack)
    half = [pack for pack in searched if pack.is_dir() and any(pack.glob("*.onnx"))]
    note = f"\n{half[0]} has .onnx files, but none of them is the detector: the pack is incomplete." if half else ""
    place = _first(folders, "models/insightface")
    raise ModelNotFoundError(
        f"The InsightFace pack {name} was not found.\n{_searched(searched)}{note}\n"
        f"Files wanted: the pack's .onnx files, with the detector {' or '.join(_DETECTION_PATTERNS)} among them\n"
        f"{INSIGHTFACE_SOURCE.format(name=name)} The files belong into {place / 'models' / name}. "
        "YuNet needs no pack and may be used commercially."
    )


def detection_file(pack: str | Path) -> Path | None:
    """The detection model among a pack's files, or None."""
    for pattern in _DETECTION_PATTERNS:
        for path in sorted(Path(pack).glob(pattern)):
            if path.is_file():
                return path
    return None


def _searched(folders: list[Path]) -> str:
    if not folders:
        return "No folder was searched: none is set up."
    lines = [f"  {folder}{'' if folder.is_dir() else '  (does not exist)'}" for folder in folders]
    return "Folders searched:\n" + "\n".join(lines)


def _first(folders: list[Path], fallback: str) -> Path:
    return folders[0] if folders else Path(fallback)
