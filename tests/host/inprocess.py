"""Run a test's function inside the host, without a server: a fresh Python with ComfyUI and this pack imported.

A process of its own, because ComfyUI reads `sys.argv` when it is imported, keeps its models in module globals, and
because its `nodes.py` must be found before the pack's `nodes/` folder. Where processes can be forked, each is a fork of
one that has imported what the host imports of others' packages, and nothing of the host: that takes most of a start.
"""

import asyncio
import atexit
import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

PACK_ROOT = Path(__file__).parents[2]
# Packages of others that ComfyUI 0.3.75 imports, dearest first.
IMPORTED = ("torch", "torchvision", "torchaudio", "scipy.stats", "transformers", "alembic", "kornia", "aiohttp", "cv2")


class HostFailure(AssertionError):
    """The function raised inside the host. `kind` is the exception's class name, `message` its text."""

    def __init__(self, kind: str, message: str, details: str):
        super().__init__(f"{kind}: {message}\n{details}")
        self.kind = kind
        self.message = message


class Host:
    """What the function gets as its first argument."""

    def __init__(self, comfyui: Path, base: Path):
        self.comfyui = comfyui
        self.base = base  # ComfyUI's base directory: models/, input/, output/
        self.nodes = importlib.import_module("nodes")  # the host's
        self._pack = str(PACK_ROOT).replace(".", "_x_")  # the host names a pack's module after its path

    def load_pack(self) -> None:
        assert asyncio.run(self.nodes.load_custom_node(str(PACK_ROOT))), "the host could not load the pack, see its log"

    def pack(self, name: str) -> ModuleType:
        """A module of the loaded pack, such as `host.pack("nodes.host_unet")`."""
        return importlib.import_module(f"{self._pack}.{name}")

    def node(self, node_id: str, **inputs) -> tuple:
        """Execute a node of the pack, or of the host's extras in the V3 form, and return its outputs."""
        return tuple(self._node_class(node_id).execute(**inputs).args)

    def _node_class(self, node_id: str):
        if node_id not in self.nodes.NODE_CLASS_MAPPINGS:
            extras = importlib.import_module("comfy_extras.nodes_custom_sampler")
            return getattr(extras, node_id)
        return self.nodes.NODE_CLASS_MAPPINGS[node_id]


def run_in_host(
    function: Callable,
    *args,
    comfyui: Path,
    base: Path,
    argv: tuple[str, ...] = ("--cpu",),
    timeout: float = 900,
    threads: int = 2,
):
    """Call `function(host, *args)` inside a fresh host and return what it returns.

    function: defined at the top of a file that imports neither this repository nor anything relative, for the file is
    loaded again there. args and result: what JSON holds; hand tensors over as files. Runs under inference mode, as
    nodes do. Raises HostFailure with the exception's class name and text.
    """
    request, answer = base / "request.json", base / "answer.json"
    base.mkdir(parents=True, exist_ok=True)
    answer.unlink(missing_ok=True)
    request.write_text(
        json.dumps({"file": function.__code__.co_filename, "function": function.__name__, "args": args}, default=str)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
    arguments = [str(comfyui), str(base), *argv]
    if hasattr(os, "fork"):
        ended, log = _Forks.get().run(arguments, base, environment, timeout)
    else:
        done = subprocess.run(
            [sys.executable, __file__, *arguments],
            cwd=base,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        ended, log = done.returncode, done.stdout + done.stderr
    log = log[-6000:]
    if not answer.is_file():
        raise HostFailure("NoAnswer", f"the host's process ended with {ended}", log)
    result = json.loads(answer.read_text())
    if "error" in result:
        raise HostFailure(*result["error"], log)
    return result["value"]


class _Forks:
    """The process that is forked for each host."""

    _running: "_Forks | None" = None

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self._process.kill)

    @classmethod
    def get(cls) -> "_Forks":
        if cls._running is None or cls._running._process.poll() is not None:
            cls._running = cls()
        return cls._running

    def run(self, arguments: list[str], folder: Path, environment: dict, timeout: float) -> tuple[int, str]:
        """What a fork ended with, and all that it said."""
        log = folder / "host.log"
        asked = {"arguments": arguments, "folder": str(folder), "environment": environment, "log": str(log)}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self._process.kill()  # its fork goes with it
            raise subprocess.TimeoutExpired(arguments, timeout)
        ended = int(self._process.stdout.readline() or -1)
        return ended, log.read_text(errors="replace")


def _fork_on_demand() -> None:
    """Forks a host for each line on stdin, one after another, and prints what it ended with."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # not every host has each
            importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become_host(**asked)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become_host(arguments: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    """In the fork: never returns."""
    code = 1
    try:
        _die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[1:] = arguments
        main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """Asks Linux to end this process with the one it was forked from."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    """Inside the child: `inprocess.py COMFYUI BASE [host's options]`."""
    comfyui, base, options = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    sys.path[0] = str(comfyui)  # instead of this file's folder
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # what tests share
    sys.argv = ["main.py", "--base-directory", str(base), "--disable-metadata", *options]
    import comfy.options

    comfy.options.enable_args_parsing()  # before anything of the host reads its options
    import torch

    # As the host's main.py does, before its nodes.py puts comfy/ in front, which has a utils.py of its own.
    importlib.import_module("utils.install_util")

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    request = json.loads((base / "request.json").read_text())
    try:
        host = Host(comfyui, base)
        host.load_pack()
        spec = importlib.util.spec_from_file_location("inside_host", request["file"])
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with torch.inference_mode():
            answer = {"value": getattr(module, request["function"])(host, *request["args"])}
    except BaseException as error:  # newer hosts' interruption is no Exception
        traceback.print_exc()
        answer = {"error": [type(error).__name__, str(error)]}
    (base / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main() if sys.argv[1:] else _fork_on_demand()
