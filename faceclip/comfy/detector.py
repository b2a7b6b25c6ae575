"""YuNet for the demo and the tests: what this machine has, else fetched once into the cache folder."""

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelNotFoundError
from ..install import places
from ..install.published import YUNET
from .environment import PACK_ROOT, cache_folder
from .process import Say

_PATIENCE = 40  # seconds for 0.2 MB; who has no network is not to wait for minutes


def provide_yunet(python: Path, say: Say, models: Sequence[Path] = (), patience: float = _PATIENCE) -> Path | None:
    """A YuNet file: what `places.find_detector` finds, the one fetched before, or fetched now; None without a hub.

    python: has the hub's client among its packages. models: what --models named. Raises as `places.find_folders` does
    where something that was named is wrong.
    """
    cache = cache_folder() / "models"
    with contextlib.suppress(ModelNotFoundError):
        return places.find_detector(models)
    with contextlib.suppress(ModelNotFoundError):
        return places.find_yunet([cache / YUNET.folder])
    say(f"Fetching {YUNET.about} ({YUNET.licence}), from {YUNET.url}")
    cache.mkdir(parents=True, exist_ok=True)
    # A process of its own: the hub's client is a package of the environment, and has no bound for the whole.
    command = [python, "-m", "faceclip", "download", "yunet", "--yes", "--models", cache]
    try:
        done = subprocess.run(
            command, cwd=PACK_ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience
        )
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        problem = f"it did not arrive within {patience:.0f} s"
    if not problem:
        return cache / YUNET.folder / YUNET.name
    say(f"Going on without it ({problem.removeprefix('error: ')}). FACECLIP_YUNET can name a file.")
    return None
