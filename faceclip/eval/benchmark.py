"""`python -m faceclip eval GRID --out FOLDER`: make the pictures of a benchmark, measure them, and show them."""

import argparse
import functools
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..bulk.cell import Made
from ..bulk.grid import Grid, GridCell, read_grid
from ..bulk.servers import PICTURE_TIMEOUT, SLOTS, ServerWorker, check_servers
from ..bulk.store import Store
from ..bulk.work import Outcome, make_all
from ..comfy.process import exit_on_sigterm
from ..errors import InputError
from ..install import places
from ..progress import shown
from . import distribution, page, table
from .measure import Memory, Row, measure_grid
from .metrics import Clip, ClipScore, Metric, Similarity, load_clip
from .ready import take_ready

if TYPE_CHECKING:
    from ..faces.detect.base import Detector

METRICS = ("similarity", "clip", "fid", "kid")
PICTURES, READY = "pictures", "ready"  # folders below --out
CSV, PAGE, MEASURES = "results.csv", "index.html", "measures.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add(
        "grid",
        type=Path,
        nargs="?",
        metavar="GRID",
        help="the benchmark file: identities, prompts and seeds (TOML or JSON); without one, the small model that "
        "comes with the pack is measured on cartoon people it never saw",
    )
    add("--out", type=Path, metavar="FOLDER", help="where pictures, table and page go")
    source = parser.add_argument_group("pictures", "without one of these, what is in FOLDER already is measured")
    add = source.add_argument
    add("--server", action="append", default=[], metavar="URL", help="a running ComfyUI; may be given several times")
    add("--ray", metavar="ADDRESS", help='share the work through Ray, one actor per server; "local" starts Ray here')
    add("--timeout", type=float, default=PICTURE_TIMEOUT, metavar="S", help="seconds for one picture (%(default).0f)")
    add("--pictures", type=Path, metavar="FOLDER", help="ready pictures: KEY.png or IDENTITY/PROMPT/SEED.png")
    models = parser.add_argument_group("measures", "what is measured follows from the models named")
    add = models.add_argument
    add("--metrics", nargs="+", choices=(*METRICS, "none"), help="insist on these, and leave the others out")
    add("--faceclip", type=Path, metavar="FILE", help="similarity by the face encoder of this FaceCLIP")
    add("--insightface", type=Path, metavar="FOLDER", help="similarity by this InsightFace pack (independent)")
    add("--sface", type=Path, metavar="FILE", help="similarity by SFace (independent, for commercial use too)")
    add("--detector", type=Path, metavar="PATH", help="YuNet's file or an InsightFace pack (default: what is found)")
    places.add_argument(models)
    add("--clip", metavar="MODEL", help="CLIP score: a folder with open_clip_config.json, or an open_clip model's name")
    add("--clip-weights", metavar="FILE", help="its weights, where MODEL is a name")
    add("--real", type=Path, metavar="FOLDER", help="real pictures that FID and KID compare with")
    add(
        "--inception",
        type=Path,
        metavar="FILE",
        help=f"Inception's weights for FID and KID, {distribution.WEIGHTS_NAME}",
    )
    add("--features", choices=("inception", "clip"), default="inception", help="what FID and KID see the pictures by")
    add("--device", help="where it measures, such as cuda (default: cuda where there is one, else cpu)")
    add("--download", action="store_true", help="let open_clip download the model that --clip names")


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing, measure, write table and page; 1 where pictures are missing, else 0."""
    exit_on_sigterm()
    if arguments.grid is None:
        from ..train.small.sheet import report as report_small_model

        report_small_model(arguments.out)
        return 0
    if arguments.out is None:
        raise InputError("--out is missing: name the folder for pictures, table and page.")
    wanted = _wanted(arguments)
    grid = read_grid(arguments.grid)
    out = arguments.out.expanduser().absolute()
    out.mkdir(parents=True, exist_ok=True)
    device = arguments.device or _device()
    clip = load_clip(arguments.clip, arguments.clip_weights, device, arguments.download) if arguments.clip else None
    # All models are loaded, and the persons' photos read, before hours go into pictures.
    metrics = _metrics(arguments, wanted, grid, clip, device)
    extractor = _extractor(arguments, wanted, clip, device)
    store, problems = _pictures(arguments, grid, out)
    with shown("Measuring", "pictures") as tell:
        rows = measure_grid(grid, store, metrics, Memory(out / MEASURES), problems, tell)
    notes = [metric.about for metric in metrics]
    whole = _distances(arguments, wanted, rows, extractor, notes)
    summaries = table.summarise(rows, whole)
    table.write_csv(out / CSV, rows, summaries)
    page.write_page(out / PAGE, grid, rows, summaries, notes)
    _report(rows, summaries, out)
    return int(any(row.picture is None for row in rows))


def _wanted(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The metrics to measure; raises InputError where an option is missing or contradicts another."""
    if arguments.pictures and arguments.server:
        raise InputError("--pictures and --server contradict each other: the pictures are ready, or they are made.")
    if arguments.ray and not arguments.server:
        raise InputError("--ray shares work between ComfyUI servers; name them with --server.")
    needs = {
        "similarity": (
            arguments.faceclip or arguments.insightface or arguments.sface,
            "--faceclip FILE, --insightface FOLDER or --sface FILE",
        ),
        "clip": (arguments.clip, "--clip MODEL"),
        "fid": (arguments.real, "--real FOLDER"),
        "kid": (arguments.real, "--real FOLDER"),
    }
    if arguments.metrics is None:
        return tuple(name for name, (given, _) in needs.items() if given)
    wanted = tuple(name for name in METRICS if name in arguments.metrics)
    for name in wanted:
        if not needs[name][0]:
            raise InputError(f"The metric {name} needs {needs[name][1]}.")
    return wanted


def _metrics(arguments, wanted, grid: Grid, clip: Clip | None, device: str) -> list[Metric]:
    found: list[Metric] = []
    if "similarity" in wanted:
        detector = detector_of(arguments)
        if arguments.faceclip:
            from ..identity.judge import OwnJudge
            from ..model.checkpoint import face_encoder_hash, load

            model = load(arguments.faceclip, device)
            version = face_encoder_hash(model)
            judge = OwnJudge(lambda crops: model.encode_identity(crops.to(device)), version)
            found.append(Similarity(judge, detector, grid.identities, "similarity_faceclip", version))
        if arguments.insightface:
            from ..identity.judge import InsightFaceJudge

            judge = InsightFaceJudge(arguments.insightface)
            found.append(Similarity(judge, detector, grid.identities, "similarity_insightface", _stamp(judge.path)))
        if arguments.sface:
            from ..identity.judge import SFaceJudge

            judge = SFaceJudge(arguments.sface)
            found.append(Similarity(judge, detector, grid.identities, "similarity_sface", _stamp(judge.path)))
    if clip is not None and "clip" in wanted:
        found.append(ClipScore(clip, _stamp(Path(arguments.clip_weights or arguments.clip))))
    return found


def _stamp(path: Path) -> str:
    """Tells a file from what it was before it changed, without reading gigabytes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    return " ".join(f"{one.name} {one.stat().st_size} {one.stat().st_mtime_ns}" for one in files) or str(path)


def detector_of(arguments: argparse.Namespace) -> "Detector":
    """The detector that the command's options name, else the one of this machine. Raises FaceCLIPError."""
    from ..faces.detect.insight import InsightFace
    from ..faces.detect.yunet import YuNet

    named = arguments.detector
    if named is None and arguments.insightface and not arguments.faceclip:
        named = arguments.insightface
    if named is not None:
        return InsightFace(named) if Path(named).is_dir() else YuNet(named)
    return YuNet(places.find_detector(arguments.models))


def _extractor(arguments, wanted, clip: Clip | None, device: str):
    """What FID and KID see the pictures by; None where neither is wanted."""
    if "fid" not in wanted and "kid" not in wanted:
        return None
    distribution.pictures_in(arguments.real)
    if arguments.features == "clip":
        if clip is None:
            raise InputError("--features clip needs --clip MODEL.")
        return distribution.ClipFeatures(clip)
    if arguments.inception is None:
        raise InputError(
            f"FID and KID need Inception's weights: --inception FILE ({distribution.WEIGHTS_NAME}). They are not "
            "downloaded by this command. Or measure with CLIP's features: --features clip."
        )
    return distribution.load_inception(arguments.inception, device)


def _pictures(arguments, grid: Grid, out: Path) -> tuple[Store, dict[str, str]]:
    """The store with all pictures that can be had, and why others are missing."""
    if arguments.pictures:
        shutil.rmtree(out / READY, ignore_errors=True)
        store = Store(out / READY)
        return store, take_ready(grid, arguments.pictures, store)
    store = Store(out / PICTURES)
    missing = store.missing(grid.cells)
    if not arguments.server:
        if len(missing) == len({cell.key for cell in grid.cells}):
            raise InputError(f"{out} has no pictures yet. Name a ComfyUI with --server, or a folder with --pictures.")
        return store, {}
    if missing:
        there = len({cell.key for cell in grid.cells}) - len(missing)
        _say(f"{len(missing)} pictures to make" + (f", {there} are there already." if there else "."))
    outcome = _make(arguments, missing, store)
    for name, reason in outcome.lost.items():
        _say(f"Given up: {name} ({reason})")
    return store, outcome.failed


def _make(arguments, missing, store: Store) -> Outcome:
    if not missing:
        return Outcome()

    def keep(cell: GridCell, made: Made) -> None:
        store.put(cell.key, made.data)

    urls = list(dict.fromkeys(arguments.server))
    factory = functools.partial(ServerWorker, timeout=arguments.timeout, look_back=store.is_begun())
    try:
        if arguments.ray:
            from ..bulk.ray_pool import ray_workers

            with ray_workers(arguments.ray, urls, factory, SLOTS) as workers, shown("Making", "pictures") as tell:
                return make_all(missing, workers, keep, tell)
        problems = check_servers(urls)
        workers = [factory(url) for url in urls if url not in problems]
        with shown("Making", "pictures") as tell:
            outcome = make_all(missing, workers, keep, tell)
        outcome.lost.update(problems)
        return outcome
    except (KeyboardInterrupt, SystemExit):
        _say(f"\nStopped; {len(missing) - len(store.missing(missing))} pictures were made and stay.")
        raise


def _distances(arguments, wanted, rows: list[Row], extractor, notes: list[str]) -> dict[str, float]:
    if extractor is None:
        return {}
    names = [name for name in distribution.NAMES if name in wanted]
    real = distribution.pictures_in(arguments.real)
    made = [row.picture for row in rows if row.picture is not None]
    if min(len(real), len(made)) < 2:
        notes.append(f"{' and '.join(names)}: not measured, with {len(made)} pictures and {len(real)} real ones.")
        return {}
    notes.append(distribution.about(len(real), len(made), extractor, names))
    return distribution.distances(distribution.read_all(real), distribution.read_all(made), extractor, names)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _report(rows: list[Row], summaries: list[table.Summary], out: Path) -> None:
    missing = [row for row in rows if row.picture is None]
    for row in missing:
        _say(f"missing: {row.cell.label}: {row.problem}")
    for one in summaries:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in one.values.items())
        faces = f", {one.without_face} without a face" if one.without_face else ""
        _say(f"{one.kind} {one.name}".strip() + f": {one.pictures} pictures{faces}{': ' if figures else ''}{figures}")
    _say(f"Page: {out / PAGE}\nTable: {out / CSV}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
