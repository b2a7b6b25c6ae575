"""`python -m faceclip prepare PHOTOS OUT`."""

import argparse
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from ...faces.detect.insight import PROVIDERS
from ...install import places
from ...progress import shown
from .crops import Filter
from .ray_blocks import look_on_ray
from .shard_job import PEOPLE, Settings, prepare
from .shard_writer import REJECTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Finds, checks and aligns the faces on photos and writes photos, crops and captions as webdataset shards. The "
        "caption of a.jpg is a.txt, or its line in captions.csv (file,caption) or captions.jsonl of its folder. A run "
        "that was stopped goes on when the same command is given again."
    )
    parser.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTOS", help="folders of photos, with their subfolders"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards and rejects.csv")
    parser.add_argument(
        "--detector",
        type=Path,
        help="YuNet's .onnx file, or the folder of an InsightFace pack (default: the YuNet that FACECLIP_YUNET names, "
        "else the one in ComfyUI's models folder)",
    )
    places.add_argument(parser)
    parser.add_argument("--provider", choices=PROVIDERS, default="auto", help="what InsightFace runs on")
    parser.add_argument(
        "--person",
        choices=PEOPLE,
        default="table",
        help="where people are known from: the column person of captions.csv or .jsonl, the folder a photo lies in, "
        "or, with --recogniser, their faces (default: %(default)s)",
    )
    parser.add_argument(
        "--recogniser", type=Path, help="SFace's .onnx file, or the folder of an InsightFace pack, for --person cluster"
    )
    parser.add_argument(
        "--alike", type=float, default=0.5, help="cosine from which two faces are one person's (%(default)s)"
    )
    parser.add_argument(
        "--others", type=int, default=2, help="faces of a person's other photos in each sample, at most (%(default)s)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core, %(default)s")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help='look at the photos on a Ray cluster, one actor a core: "auto", an address, or "local" for one here; '
        "photos, detector and OUT must lie on storage that all its machines share",
    )
    parser.add_argument("--photos-per-shard", type=int, default=1000, help="default: %(default)s")
    parser.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="K/N",
        help="only every N-th block of photos, for N machines sharing OUT",
    )
    helps = {
        "min_side": "shorter side of a photo, px",
        "max_side": "photos with a longer side are made smaller, px",
        "resolution": "of stage B, whose pictures a photo must fill; 0 for stage A alone",
        "min_face": "shorter side of a face, px of the photo as it came",
        "min_score": "the detector's score, 0 to 1",
        "min_sharpness": "of an aligned face; 0.05 is sharp",
        "max_yaw": "how far a head may be turned, degrees",
        "max_faces": "per photo; the largest are kept",
    }
    for field in fields(Filter):
        name, kind = "--" + field.name.replace("_", "-"), type(field.default)
        parser.add_argument(name, type=kind, default=field.default, help=f"{helps[field.name]} (%(default)s)")


def detector_of(arguments: argparse.Namespace) -> Path:
    """The detector's file or pack that the command's options name, else the YuNet of this machine."""
    return arguments.detector or places.find_detector(arguments.models)


def _part(text: str) -> tuple[int, int]:
    try:
        k, n = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not like 1/4") from None
    return k, n


def run(arguments: argparse.Namespace) -> int:
    """Write the shards. Returns 0, or 1 when no photo could be used. Raises FaceCLIPError."""
    wanted = Filter(**{field.name: getattr(arguments, field.name) for field in fields(Filter)})
    people = (arguments.person, arguments.recogniser, arguments.alike, arguments.others)
    settings = Settings(detector_of(arguments), wanted, arguments.photos_per_shard, arguments.provider, *people)
    run_jobs = functools.partial(look_on_ray, arguments.ray) if arguments.ray else None
    paths = [path.resolve() for path in arguments.photos] if arguments.ray else arguments.photos
    out = arguments.out.resolve() if arguments.ray else arguments.out
    with shown("Photos", "photos") as tell:
        found = prepare(paths, out, settings, arguments.processes, arguments.part, tell, run_jobs)
    lines = [
        f"{found.samples} of {found.photos} photos with {found.faces} faces are in {found.shards} shards in "
        f"{arguments.out}; {found.rejected} photos were left out, see {arguments.out / REJECTS}."
    ]
    if found.reasons:
        lines.append(f"Photos and faces left out: {_counts(found.reasons)}.")
    if found.others:
        lines.append(f"Files that are no photos: {_counts(found.others)}.")
    if found.long_captions:
        lines.append(f"{found.long_captions} captions have too many tokens and are cut in training.")
    if found.unused_captions:
        lines.append(f"{found.unused_captions} lines of captions name no photo.")
    if found.unfinished:
        lines.append(
            f"{found.unfinished} blocks of photos are not looked at yet: start the other parts too. The last one to "
            "end writes the shards."
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if found.samples else 1


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
