"""``python -m faceclip demo``: from nothing to a picture made by a real ComfyUI."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..install import places
from .detector import provide_yunet
from .environment import PACK_ROOT, compiled_once, prepare
from .process import exit_on_sigterm, hand_over
from .server import ComfyServer
from .server_errors import SetupError
from .workflow import example, for_small_model, use_aligned_face

WORKFLOW = example("portrait")
ALIGNED_PHOTO = "cartoon_ada_face.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("faceclip_demo.png"), help="the picture to write (default: %(default)s)"
    )
    places.add_argument(parser)
    # Given by this command to itself when it goes on inside the environment that it made.
    parser.add_argument("--comfyui", type=Path, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Sets up, goes on in the environment's own Python, and makes the picture."""
    exit_on_sigterm()
    output = arguments.output.expanduser().resolve()
    if not output.parent.is_dir():
        raise SetupError(f"--output is {output}, but there is no folder {output.parent}.")
    comfyui = arguments.comfyui
    if comfyui is None:
        environment = prepare(say=_say)
        comfyui = environment.comfyui
        # Not resolved: a virtual environment's Python is often a link to the one it was made with.
        if str(environment.python) != sys.executable:
            command = [environment.python, "-m", "faceclip", "demo", "--output", output, "--comfyui", comfyui]
            models = [part for folder in arguments.models for part in ("--models", folder.absolute())]
            return hand_over([*command, *models], PACK_ROOT, compiled_once())
    make_picture(comfyui, output, arguments.models)
    return 0


def make_picture(comfyui: Path, output: Path, models: Sequence[Path] = ()) -> None:
    """Runs the example prompt for a cartoon person with the pack's own small model and writes the PNG to `output`.

    models: where a face detector is looked for, in place of the host's own folders.
    """
    base = Path(tempfile.mkdtemp(prefix="faceclip-demo-"))
    kept_log = output.with_suffix(".log")
    try:
        _say("The model is the small one that comes with the pack: it draws cartoon people of 128 x 128 px.")
        has_detector = furnish(base, models)
        prompt = for_small_model(WORKFLOW.stem, json.loads(WORKFLOW.read_text("utf-8")))
        if not has_detector:
            _say("Without a face detector, the face is cut out by its known landmarks.")
            prompt = use_aligned_face(prompt, ALIGNED_PHOTO)
        _say(f"Starting the ComfyUI in {comfyui} on the CPU")
        with ComfyServer(comfyui, base) as server:
            _say(f"Queueing {WORKFLOW.relative_to(PACK_ROOT).as_posix()} at {server.url}")
            result = server.client.run(prompt)
            saved = [image for image in result.images() if image.get("type") == "output"]
            if not saved:
                raise SetupError(f"{WORKFLOW} saved no picture: it needs a SaveImage node.")
            output.write_bytes(server.client.view(saved[0]))
        _say(f"Done in {result.seconds:.1f} s: {prompt['positive']['inputs']['text']}")
        _say(f"Picture: {output}")
    except Exception:
        if (base / "comfyui.log").is_file():
            shutil.copy(base / "comfyui.log", kept_log)
            _say(f"ComfyUI's log: {kept_log}")
        raise
    finally:
        shutil.rmtree(base, ignore_errors=True)


def furnish(base: Path, sources: Sequence[Path] = ()) -> bool:
    """Puts the small model, its people and the detector into ComfyUI's base directory; False without a detector."""
    from ..small.models import write_small_model
    from ..small.pictures import place_examples

    models, pictures = base / "models", base / "input"
    detectors = models / "face_detection"
    for folder in (detectors, pictures):
        folder.mkdir(parents=True)
    write_small_model(models)
    place_examples(pictures)
    yunet = provide_yunet(Path(sys.executable), _say, sources)
    if yunet is not None:
        shutil.copy(yunet, detectors / yunet.name)
        return True
    return False


def _say(line: str) -> None:
    print(line, flush=True)
