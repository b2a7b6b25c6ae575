"""Where this machine's model files lie: the host's folders, and the detectors in them. Nothing here downloads.

FOLDERS is the one table. The nodes ask the running host for these folders; the commands look for a host themselves
(`find_folders`): by --models, by COMFYUI_PATH, else around this pack, with what extra_model_paths.yaml adds.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FaceCLIPError, InputError, ModelNotFoundError
from .published import ENCODER, SFACE, UNET, YUNET, PublishedFile, download_command

try:
    from . import variables
except ImportError:  # ComfyUI's registry offers no file that reads the environment, so its archive goes without
    variables = None

PACK = Path(os.path.abspath(__file__)).parents[2]  # not resolved: custom_nodes may hold a link to the pack
IDENTITIES = "faceclip_identities"


@dataclass(frozen=True)
class Folder:
    """One key of the host's folders.

    below: folders below models/; files are put into the first. published: the file that belongs there, if one does.
    ours: the host does not know the key unless we register it.
    """

    below: tuple[str, ...]
    extensions: tuple[str, ...]
    published: PublishedFile | None = None
    ours: bool = True


# By the keys of extra_model_paths.yaml.
FOLDERS = {
    "faceclip": Folder(("faceclip",), (".safetensors", ".pt"), ENCODER),
    "diffusion_models": Folder(("diffusion_models", "unet"), (".safetensors", ".pt"), UNET, ours=False),
    "face_detection": Folder(("face_detection",), (".onnx",), YUNET),
    "insightface": Folder(("insightface",), (".onnx",)),
    "vae": Folder(("vae",), (".safetensors", ".pt"), ours=False),  # any of SDXL will do
    "face_recognition": Folder(("face_recognition",), (".onnx",)),
    IDENTITIES: Folder((IDENTITIES,), (".safetensors",)),
}
EXTRA_PATHS = "extra_model_paths.yaml"
_OLD_KEYS = {"unet": "diffusion_models"}  # what extra_model_paths.yaml of older hosts says

INSIGHTFACE_PACKS = ("antelopev2", "buffalo_l")
INSIGHTFACE_SOURCE = (
    "Get {name}.zip from the releases page of github.com/deepinsight/insightface (tag v0.7) and unzip it there "
    "(licence of the weights: non-commercial research only)."
)
_DETECTION_PATTERNS = ("det_*.onnx", "scrfd_*.onnx")


@dataclass(frozen=True)
class Places:
    """What was found out about this machine.

    hosts: ComfyUIs, the one that COMFYUI_PATH names first. folders: key -> folders, in the order they are searched,
    none where no models folder is known. problems: what stands in the way of knowing the folders.
    """

    hosts: tuple[Path, ...]
    folders: dict[str, list[Path]]
    problems: tuple[FaceCLIPError, ...]


def add_argument(parser: argparse._ActionsContainer) -> None:
    """The option --models of every command that looks for model files."""
    parser.add_argument(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="ComfyUI's models folder, may be given several times (default: those of the ComfyUI that COMFYUI_PATH "
        f"names and of the one this pack lies in, with what its {EXTRA_PATHS} adds)",
    )


def look_around(models: Sequence[Path] = ()) -> Places:
    """Everything this machine tells; `models` folders that are named stand for those of its hosts. Raises nothing."""
    problems: list[FaceCLIPError] = []
    hosts: list[Path] = []
    try:
        hosts += filter(None, [variables and variables.named_host()])
    except InputError as error:
        problems.append(error)
    root = PACK.parent.parent
    if PACK.parent.name == "custom_nodes" and (root / "models").is_dir() and root not in hosts:
        hosts.append(root)
    found: dict[str, list[Path]] = {key: [] for key in FOLDERS}
    for folder in models or [host / "models" for host in hosts]:
        for key, kind in FOLDERS.items():
            found[key] += [Path(folder).absolute() / name for name in kind.below]
    for host in () if models else hosts:
        try:
            extra = read_extra_paths(host / EXTRA_PATHS) if (host / EXTRA_PATHS).is_file() else []
        except InputError as error:
            problems.append(error)
            continue
        for key, path, first in extra:
            found[key].insert(0 if first else len(found[key]), path)
    if not hosts:
        problems.append(
            ModelNotFoundError(
                f"No ComfyUI is known: COMFYUI_PATH names none, and {PACK} does not lie in the custom_nodes of one. "
                "Name its models folder: --models DIR, for example --models ComfyUI/models."
            )
        )
    folders = {key: list(dict.fromkeys(paths)) for key, paths in found.items()}
    return Places(tuple(hosts), folders, () if models else tuple(problems))


def find_folders(models: Sequence[Path] = ()) -> dict[str, list[Path]]:
    """Key -> folders, in the order they are searched. models: what --models named, in place of the hosts' own.

    Raises InputError where --models, COMFYUI_PATH or an extra_model_paths.yaml is wrong, ModelNotFoundError where no
    ComfyUI is known.
    """
    for folder in models:
        if not folder.is_dir():
            raise InputError(f"--models {folder} is not a folder. Name the models folder of your ComfyUI.")
    found = look_around(models)
    if found.problems:
        raise found.problems[0]
    return found.folders


def read_extra_paths(path: Path) -> list[tuple[str, Path, bool]]:
    """Our folders named in an extra_model_paths.yaml, by ComfyUI's rules: key, folder, whether it goes first.

    InputError if it can't be read.
    """
    found = []
    try:
        import yaml

        for section in filter(None, (yaml.safe_load(path.read_text("utf-8")) or {}).values()):
            base = os.path.expandvars(os.path.expanduser(section.get("base_path") or ""))
            for name, lines in section.items():
                key = _OLD_KEYS.get(name, name)
                if key in FOLDERS:
                    places = [os.path.normpath(path.parent / base / line) for line in lines.split("\n") if line]
                    found += [(key, Path(place), bool(section.get("is_default"))) for place in places]
    except Exception as error:  # no yaml here, no permission, not YAML, or YAML of another shape
        raise InputError(
            f"{path} can't be read: {' '.join(str(error).split())}. Mend it, run this with ComfyUI's own Python, or "
            "name its models folder: --models DIR."
        ) from error
    return found


def find_detector(models: Sequence[Path] = ()) -> Path:
    """The YuNet file for a command: the one that FACECLIP_YUNET names, else the one in the folders of `find_folders`.

    Raises InputError where something named is wrong, ModelNotFoundError where there is none.
    """
    if named := variables and variables.named_yunet():
        return named
    try:
        return find_yunet(find_folders(models)["face_detection"])
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{error}\nOr name the file itself in the variable FACECLIP_YUNET.") from error


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
        f"The YuNet face detector was not found.\n{searched(folders)}\nFile wanted: {YUNET.name}\n"
        f"{YUNET.source} Put it into {_first(folders, 'models/face_detection')}."
    )


def find_sface(folders: Iterable[str | Path]) -> Path:
    """SFace's file in the first folder that has it, subfolders included. ModelNotFoundError says how to get it."""
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        for path in sorted(folder.rglob(SFACE.name)):
            if path.is_file():
                return path
    raise ModelNotFoundError(
        f"The SFace face recogniser was not found.\n{searched(folders)}\nFile wanted: {SFACE.name}\n"
        f"Get it by the menu FaceCLIP > Get FaceCLIP's files, by {download_command(SFACE)}, or from {SFACE.url} "
        f"(licence: {SFACE.licence})."
    )


def find_insightface(folders: Iterable[str | Path], name: str) -> Path:
    """The folder with the .onnx files of an InsightFace pack (`antelopev2`, `buffalo_l`, ...).

    Each of `folders` (the host's models/insightface, or the models folder in it) is searched for models/NAME and NAME,
    also doubled (NAME/NAME), as unzipping into a folder of that name leaves it.
    ModelNotFoundError lists every folder searched, the files wanted and where to get them.
    """
    folders = [Path(folder) for folder in folders]
    tried = []
    for folder in folders:
        for base in (folder / "models" / name, folder / name):
            for pack in (base, base / name):
                if detection_file(pack) is not None:
                    return pack
                tried.append(pack)
    half = [pack for pack in tried if pack.is_dir() and any(pack.glob("*.onnx"))]
    note = f"\n{half[0]} has .onnx files, but none of them is the detector: the pack is incomplete." if half else ""
    place = _first(folders, "models/insightface")
    raise ModelNotFoundError(
        f"The InsightFace pack {name} was not found.\n{searched(tried)}{note}\n"
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


def searched(folders: Iterable[str | Path]) -> str:
    """The folders as lines of a message, with those that do not exist marked."""
    folders = [Path(folder) for folder in folders]
    if not folders:
        return "No folder was searched: none is set up."
    lines = [f"  {folder}{'' if folder.is_dir() else '  (does not exist)'}" for folder in folders]
    return "Folders searched:\n" + "\n".join(lines)


def _first(folders: list[Path], fallback: str) -> Path:
    return folders[0] if folders else Path(fallback)
