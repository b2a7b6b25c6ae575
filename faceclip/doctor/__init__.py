"""Looks at an installation and tells what is wrong and what mends it.

Works where the installation does not: nothing but the standard library is imported before it is needed, and a package
that fails to import becomes a finding.
"""

from collections.abc import Callable

from . import model_files, software
from .finding import OK, PROBLEM, WARN, Finding, report

__all__ = ["OK", "PROBLEM", "WARN", "Finding", "examine", "report"]


def examine(
    host: str | None,
    folders: dict[str, list[str]],
    check_hashes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Every finding, in the order of the report.

    host: ComfyUI's version, None if there is no ComfyUI to ask. folders: folder key (`files.KEYS`) -> folders that are
    searched. check_hashes: read published files whole and compare their SHA-256; progress(bytes done, in all) then.
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
