"""Everything that is looked at, in the order of the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import model_files, software
from .finding import Finding


def examine(
    host: str | None,
    folders: Mapping[str, Sequence[str | Path]],
    check_hashes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Every finding, in the order of the report.

    host: ComfyUI's version, None if there is no ComfyUI to ask. folders: folder key (`places.FOLDERS`) -> folders
    that are searched. check_hashes: read published files whole and compare their SHA-256; progress(bytes done, in all)
    then.
    Raises nothing of its own; what `progress` raises passes through.
    """
    return [
        software.check_host(host),
        software.check_python(),
        *software.check_torch(),
        *software.check_onnxruntime(),
        software.check_opencv(),
        *software.check_packages(),
        *model_files.check_files(folders, check_hashes, progress),
        *software.check_memory(),
    ]
