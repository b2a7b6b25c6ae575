"""``python -m tests [pytest's arguments]``: sets up the environment and a real ComfyUI, then runs pytest in it."""

import os
import sys
from pathlib import Path

from faceclip.comfy.detector import provide_yunet
from faceclip.comfy.environment import compiled_once, prepare
from faceclip.comfy.process import exit_on_sigterm, hand_over
from faceclip.errors import FaceCLIPError

TESTS = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Returns pytest's exit status, or 1 if the environment cannot be made."""
    exit_on_sigterm()
    try:
        environment = prepare(tests=True, say=_say)
        yunet = provide_yunet(environment.python, _say)
    except FaceCLIPError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    variables = {"COMFYUI_PATH": str(environment.comfyui), **compiled_once()}
    if yunet is not None:
        variables["FACECLIP_YUNET"] = str(yunet)
    # ninja and ruff of the environment come first, as if it were activated.
    variables["PATH"] = os.pathsep.join([str(environment.python.parent), os.environ.get("PATH", "")])
    named = any(Path(argument.split("::")[0]).exists() for argument in arguments if not argument.startswith("-"))
    command = [environment.python, "-m", "pytest", "-c", str(TESTS / "pytest.ini"), *arguments]
    if not named:
        # Much of a whole run is waiting for servers and browsers. A file stays together, for its fixtures; pytest-xdist
        # would give out those with few tests last, some of which take longest.
        processes = str(max(2, min(os.cpu_count() or 1, 4)))
        command[5:5] = ["-n", processes, "--dist", "loadfile", "--no-loadscope-reorder", str(TESTS)]
        variables.setdefault("OMP_NUM_THREADS", "1")
    return hand_over(command, Path.cwd(), variables)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
