"""What a user tells the commands by variables of the environment.

All reading of them for host and detector is here. The archive for ComfyUI's registry, which takes no file that reads
the environment, goes without this one: a pack from there lies in its ComfyUI, where nothing has to be told.
"""

import os
from pathlib import Path

from ..errors import InputError

_OF_A_HOST = ("main.py", "requirements.txt", "comfy")


def named_host() -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, None where it is not set. Raises InputError where that is no ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    missing = [name for name in _OF_A_HOST if not (path / name).exists()]
    if missing:
        raise InputError(
            f"COMFYUI_PATH is {path}, which is no ComfyUI: it has no {', '.join(missing)}. "
            "Set it to the folder with ComfyUI's main.py, or unset it."
        )
    return path


def named_yunet() -> Path | None:
    """The file that FACECLIP_YUNET names, None where it is not set. Raises InputError where that is no file."""
    named = os.environ.get("FACECLIP_YUNET")
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise InputError(f"FACECLIP_YUNET is {named}, which is no file; name the .onnx file, or unset it.")
    return path
