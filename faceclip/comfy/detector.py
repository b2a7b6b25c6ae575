"""YuNet for the demo and the tests: what this machine has, else fetched once into the cache folder."""

import subprocess
from pathlib import Path

from ..install.published import YUNET
from .environment import PACK_ROOT, Environment, cache_folder
from .photo import find_yunet
from .process import Say

_PATIENCE = 40  # seconds for 0.2 MB; who has no network is not to wait for minutes


def provide_yunet(environment: Environment, say: Say, patience: float = _PATIENCE) -> Path | None:
    """A YuNet file: FACECLIP_YUNET, the host's, the one fetched before, or fetched now; None where the hub gives none.

    Raises SetupError if FACECLIP_YUNET names no file.
    """
    models = cache_folder() / "models"
    found = find_yunet((environment.comfyui / "models" / YUNET.folder, models / YUNET.folder))
    if found:
        return found
    say(f"Fetching {YUNET.about} ({YUNET.licence}), from {YUNET.url}")
    models.mkdir(parents=True, exist_ok=True)
    # A process of its own: the hub's client is a package of the environment, and has no bound for the whole.
    command = [environment.python, "-m", "faceclip", "download", "yunet", "--yes", "--models", models]
    try:
        done = subprocess.run(
            command, cwd=PACK_ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience
        )
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        problem = f"it did not arrive within {patience:.0f} s"
    if not problem:
        return models / YUNET.folder / YUNET.name
    say(f"Going on without it ({problem.removeprefix('error: ')}). FACECLIP_YUNET can name a file.")
    return None
