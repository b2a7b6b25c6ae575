"""What a style costs in likeness, by how strongly it is put on; and what merging it takes of memory.

    python -m benchmarks.style [--part strength|memory] [--people 40] [--threads 1] [--plot docs/style.png]

Strength: the small model and its style companion, in a real ComfyUI (COMFYUI_PATH), put on by the stock LoRA loader and
by FaceCLIPStyleMerge with the companion as style and the small UNet as base, without and with the weights that read the
conditioning. Likeness: cosine of FaceCLIP's own face encoder between each person's face and the picture's. Style: where
the picture's colours stand between those of drawings (0) and of prints (1), both through the VAE.
Memory: a random UNet of 0.4 of SDXL's widths in bf16, in fresh processes: alone, and with a style merged into it from
two more files.
"""

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
# A process inside the host and random weights belong to the tests, which are no package.
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]

from inprocess import run_in_host  # noqa: E402
from seeded import seeded  # noqa: E402

from benchmarks import inside_style  # noqa: E402
from faceclip.comfy.workflow import SMALL_FILES  # noqa: E402
from faceclip.sampling import unet_file  # noqa: E402
from faceclip.sampling.unet_config import SDXL, expected_shapes  # noqa: E402
from faceclip.small import models as small  # noqa: E402
from faceclip.train.small import recipe, scores, sheet, shipped, style  # noqa: E402

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
WAYS = {"lora": "stock LoRA loader", "merge, keep": "Merge Style, keep FaceCLIP's", "merge, all": "Merge Style, merge"}
COLOURS = {"lora": (40, 120, 200), "merge, keep": (214, 96, 40), "merge, all": (60, 150, 90)}
SHOWN = 4  # people in the picture
INK, GRID = (40, 40, 40), (215, 215, 215)


def strengths(people: int, threads: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]]:
    """The pictures of each way and strength, and their mean likeness and style."""
    base = Path(tempfile.mkdtemp(prefix="faceclip-style-"))
    small.write_small_model(base / "models")
    sample = scores.Sample.of(sheet.held_out_data(base / "people", recipe.read(), people), people)
    faces, out = base / "faces.npy", base / "drawn.npz"
    np.save(faces, (sample.rows("crops", sample.reference) * 255).round().byte().numpy())
    given = (SMALL_FILES, small.STYLE_FILE, str(faces), sample.captions, list(STRENGTHS), str(out))
    host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": base, "threads": threads, "timeout": 7200}
    run_in_host(inside_style.draw, *given, **host)
    drawn = dict(np.load(out))
    return drawn, measured(drawn, sample)


@torch.no_grad()
def measured(drawn: dict[str, np.ndarray], sample: scores.Sample) -> dict[str, tuple[float, float]]:
    model = shipped.load()
    reference = model.faceclip.encode_identity(sample.rows("crops", sample.reference)).embedding
    judge = StyleJudge(sample.rows("pictures", sample.wanted), model.vae)
    found = {}
    for name, pictures in drawn.items():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255  # BHWC -> BCHW
        crops = scores.cut_faces(pixels, model.classifier(pixels).landmarks)
        seen = model.faceclip.encode_identity(crops).embedding
        found[name] = ((seen * reference).sum(-1).mean().item(), judge(pixels).mean().item())
    return found


class StyleJudge:
    """Tells drawings from prints by means and covariances of their colours: a line between both kinds' means."""

    def __init__(self, drawings: torch.Tensor, vae):
        kinds = [vae.decode(vae.encode(kind)).clamp(0, 1) for kind in (drawings, style.printed(drawings))]
        plain, print_ = (self._statistics(kind) for kind in kinds)
        both = torch.cat([plain - plain.mean(0), print_ - print_.mean(0)])
        spread = both.T @ both / len(both) + 1e-5 * torch.eye(both.shape[1])
        direction = torch.linalg.solve(spread, print_.mean(0) - plain.mean(0))
        self._start, length = plain.mean(0), (print_.mean(0) - plain.mean(0)) @ direction
        self._direction = direction / length

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return (self._statistics(pictures) - self._start) @ self._direction

    @staticmethod
    def _statistics(pictures: torch.Tensor) -> torch.Tensor:
        flat = pictures.flatten(2)  # [N, 3, pixels]
        mean = flat.mean(-1)
        around = flat - mean[..., None]
        covariance = around @ around.transpose(1, 2) / flat.shape[-1]
        upper = torch.triu_indices(3, 3)
        return torch.cat([mean, covariance[:, upper[0], upper[1]]], dim=1)


def plot(path: Path, drawn: dict[str, np.ndarray], found: dict[str, tuple[float, float]]) -> None:
    """Some people at each strength of the LoRA, and below them likeness and style against strength, way by way."""
    side = small.SIZE
    rows = [np.concatenate(list(drawn[f"lora {one:g}"][:SHOWN]), axis=0) for one in STRENGTHS]
    people = Image.fromarray(np.concatenate(rows, axis=1))
    width, top, height = people.width, people.height + 28, 300
    picture = Image.new("RGB", (width, top + height), "white")
    picture.paste(people, (0, 24))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for number, strength in enumerate(STRENGTHS):
        draw.text(((number + 0.5) * side, 4), f"strength {strength:g}", INK, font, "ma")
    for number, name in enumerate(("likeness", "style")):
        box = (number * width / 2 + 44, top + 40, (number + 1) * width / 2 - 16, top + height - 40)
        _axes(draw, font, name, box, {way: {s: found[_key(way, s)][number] for s in STRENGTHS} for way in WAYS})
    for number, (way, words) in enumerate(WAYS.items()):
        x = 44 + number * width / 3
        draw.line((x, picture.height - 10, x + 20, picture.height - 10), COLOURS[way], 3)
        draw.text((x + 26, picture.height - 10), words, INK, font, "lm")
    picture.save(path, optimize=True)


def _axes(draw, font, name: str, box, lines: dict[str, dict[float, float]]) -> None:
    left, top, right, bottom = box
    low, high = -0.1, 1.1

    def place(strength: float, value: float) -> tuple[float, float]:
        return left + strength / max(STRENGTHS) * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    draw.text((left, top - 22), f"{name} against strength", INK, font)
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line((place(0, value), place(max(STRENGTHS), value)), GRID)
        draw.text((left - 6, place(0, value)[1]), f"{value:g}", INK, font, "rm")
    for strength in STRENGTHS:
        draw.text((place(strength, low)[0], bottom + 4), f"{strength:g}", INK, font, "ma")
    for thick, (way, points) in zip((9, 6, 2), lines.items(), strict=True):  # where they meet, all are seen
        draw.line([place(strength, value) for strength, value in points.items()], COLOURS[way], thick, joint="curve")


def _key(way: str, strength: float) -> str:
    return f"{way if strength else 'lora'} {strength:g}"  # at 0 all ways are FaceCLIP itself


def memory(threads: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="faceclip-merge-"))
    widths = tuple(round(0.4 * width) for width in SDXL.block_out_channels)
    sizes = replace(SDXL, block_out_channels=widths, attention_head_dim=tuple(width // 64 for width in widths))
    state = seeded(expected_shapes(sizes), dtype=torch.bfloat16)
    path = base / "models" / "diffusion_models" / "random.safetensors"
    path.parent.mkdir(parents=True)
    unet_file.save(state, sizes, path)
    print(f"UNet of {path.stat().st_size / 2**20:.0f} MiB, widths {widths}, bf16", flush=True)
    host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": base, "threads": threads, "timeout": 1800}
    for merge in (False, True):
        told = run_in_host(inside_style.peak_memory, path.name, merge, **host)
        name = "with a style merged" if merge else "alone"
        print(f"{name}: {told['held']} MiB with its files read, {told['peak']} MiB at most when patched", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("strength", "memory"), help="one of the two alone")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="where the picture of likeness and style goes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, CPU", flush=True)
    if args.part != "strength":
        memory(args.threads)
    if args.part != "memory":
        drawn, found = strengths(args.people, args.threads)
        for name, (likeness, share) in found.items():
            print(f"{name:18} likeness {likeness:6.3f}  style {share:6.3f}")
        if args.plot:
            plot(args.plot, drawn, found)


if __name__ == "__main__":
    main()
