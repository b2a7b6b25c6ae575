"""What FaceCLIP's encoding costs against the published order of work, side by side in one run.

    python -m benchmarks.encode [--family faceclip|t5] [--runs 5] [--threads 2] [--device cpu]

Both sides use the same modules and the same full-size weights (from the formula behind the golden files; both
branches get the same face encoder, as a published file whose copies are equal). The published order keeps two face
encoders, redoes the face for every prompt, recomputes the zero picture and runs the last face layer, which nothing
reads. Prints medians and ratios, and the peak memory of a fresh process that loads a bf16 file and encodes. FaceT5
(encode_t5.py) is measured likewise, and what rounding costs it.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))  # the golden weights: they belong to the tests, which are no package

from golden import DATA, golden_face, golden_state_dict, relative_error  # noqa: E402

from benchmarks import encode_t5  # noqa: E402
from faceclip import FaceCLIP, save  # noqa: E402
from faceclip.model.checkpoint import build, load, share_face_encoder  # noqa: E402
from faceclip.model.config import PUBLISHED, PUBLISHED_T5  # noqa: E402
from faceclip.model.prompt import tokenize  # noqa: E402

PUBLISHED_PEAK_GB = 7.4  # measured on the published structure in float32
PROMPT = "A woman wearing a blue denim shirt and khaki pants, on a rocky desert plateau."
NEW_PROMPT = "A woman in a red coat, reading a newspaper in a small cafe."
NEGATIVE = "nude, worst quality, low quality, abstract, glitch, deformed, ugly, text, watermark, blurry"


def published_fuse(branch, text, patches, position):
    """The fuser with everything it holds run, the last face layer too."""
    encoder = branch.fuser.encoder
    text_position = branch.text_pos_proj(branch.positional_embedding)
    face_position = branch.face_pos_proj(position)
    text, face = branch.text_embed_proj(text), branch.face_patch_proj(patches)
    for fusion, text_layer, face_layer in zip(encoder.fusion_layers, encoder.text_layers, encoder.layers, strict=True):
        face, text = fusion(face, text, text_only=False)
        text = text_layer(text, text_position)
        face = face_layer(face, face_position)
    return text


@torch.no_grad()
def published_order(model: FaceCLIP, prompt: str, face: torch.Tensor | None):
    """One prompt in the published order: each branch encodes the face (or the zero picture) with its own encoder."""
    has_face = face is not None
    picture = face if has_face else torch.zeros(1, 3, 448, 448, device=model.pass_device)
    ids = torch.tensor([tokenize(prompt, has_face)[0].ids], device=model.pass_device)
    flags = torch.tensor([has_face], device=model.pass_device)
    fused = []
    for name in ("face_clip_l", "face_clip_g"):
        branch, encoder = getattr(model, name), model.face_encoder_of(name)
        features = encoder(picture)
        text = branch.encode_text(ids, features.identity_embedding, flags)
        fused.append(published_fuse(branch, text, features.patch_tokens, encoder.pos_embed))
    return torch.cat(fused, dim=-1), text[:, ids.argmax()]


def full_state() -> dict[str, torch.Tensor]:
    """Full-size golden weights with the l branch's face encoder in both branches."""
    state = golden_state_dict(DATA / "state_dict_full.tsv")
    for key in list(state):
        if key.startswith("face_clip_g.face_encoder."):
            state[key] = state[key.replace("face_clip_g", "face_clip_l")].clone()
    return state


def timed(function, device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(name: str, ours, published, device: torch.device, runs: int) -> float:
    """Run both in turn, print medians, return the median of the pairwise ratios."""
    ours(), published()
    pairs = [(timed(ours, device), timed(published, device)) for _ in range(runs)]
    mine, theirs = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:44} {mine:9.0f} ms {theirs:9.0f} ms {ratio:8.2f}x")
    return ratio


def speed(args, state: dict[str, torch.Tensor]) -> None:
    device = torch.device(args.device)
    two = build(dict(state), PUBLISHED, "two face encoders", device)
    one = build(share_face_encoder(state), PUBLISHED, "one face encoder", device)
    face = golden_face(1)[None].to(device)

    def ours():
        identity = one.encode_identity(face)
        return one.encode_prompt([PROMPT], identity), one.encode_prompt([NEGATIVE])

    def published():
        return published_order(two, PROMPT, face), published_order(two, NEGATIVE, None)

    for mine, theirs in zip(ours(), published(), strict=True):
        error = max(relative_error(mine.embeddings, theirs[0]), relative_error(mine.pooled, theirs[1]))
        assert error < 1e-5, f"the two sides differ by {error:.1e}: nothing to compare"
    print(f"{'float32, medians of ' + str(args.runs) + ' runs in turn':44} {'ours':>12} {'published':>12} {'ratio':>9}")
    compare("positive and negative prompt", ours, published, device, args.runs)
    identity = one.encode_identity(face)
    compare(
        "new prompt, known face, negative kept",
        lambda: one.encode_prompt([NEW_PROMPT], identity),
        lambda: (published_order(two, NEW_PROMPT, face), published_order(two, NEGATIVE, None)),
        device,
        args.runs,
    )


def speed_t5(args, state: dict[str, torch.Tensor]) -> None:
    device = torch.device(args.device)
    model = encode_t5.wide_model(state, device)
    face = golden_face(1)[None].to(device)

    def ours():
        identity = model.encode_identity(face)
        return model.encode_prompt([PROMPT], identity), model.encode_prompt([NEGATIVE])

    def published():
        return encode_t5.published_order(model, PROMPT, face), encode_t5.published_order(model, NEGATIVE, None)

    for mine, theirs in zip(ours(), published(), strict=True):
        error = relative_error(mine.embeddings, theirs)
        assert error < 1e-5, f"the two sides differ by {error:.1e}: nothing to compare"
    print(f"{f'one T5 block, medians of {args.runs} runs in turn':44} {'ours':>12} {'published':>12} {'ratio':>9}")
    compare("positive and negative prompt", ours, published, device, args.runs)
    identity = model.encode_identity(face)
    compare(
        "new prompt, known face, negative kept",
        lambda: model.encode_prompt([NEW_PROMPT], identity),
        lambda: (
            encode_t5.published_order(model, NEW_PROMPT, face),
            encode_t5.published_order(model, NEGATIVE, None),
        ),
        device,
        args.runs,
    )
    faces = {"face": 0}
    model.face_encoder.register_forward_hook(lambda *_: faces.update(face=faces["face"] + 1))
    model._zero = None
    identity = model.encode_identity(face)
    for prompt in (PROMPT, NEW_PROMPT):
        model.encode_prompt([prompt], identity)
        model.encode_prompt([NEGATIVE])
    print(f"passes through the face encoder for one face, two prompts and a negative each: {faces['face']}")


def peak_memory(args, state: dict[str, torch.Tensor], config) -> None:
    """Write a bf16 file, and let a fresh process load it and encode."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bf16.safetensors"
        save(state, path, config, torch.bfloat16)
        state.clear()
        command = [sys.executable, "-m", "benchmarks.encode", "--child", str(path), "--device", args.device]
        subprocess.run([*command, "--threads", str(args.threads)], check=True)


def own_peak_gb() -> float:
    """Peak resident memory of this process. ru_maxrss would count the parent's too, which exec hands on."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def child(args) -> None:
    device = torch.device(args.device)
    libraries = own_peak_gb()
    model, before = load(args.child, device), own_peak_gb()
    identity = model.encode_identity(golden_face(1)[None])
    model.encode_prompt([PROMPT], identity)
    model.encode_prompt([NEGATIVE])
    peak, file = own_peak_gb(), Path(args.child).stat().st_size / 1e9
    print(f"bf16 file of {file:.2f} GB: peak memory {before:.2f} GB after loading, {peak:.2f} GB after encoding,")
    print(f"{libraries:.2f} GB of which Python and its libraries took before")
    print(f"that is {peak / file:.2f}x of the file" + _against_published(model, peak))
    if device.type == "cuda":
        print(f"peak VRAM: {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")


def _against_published(model, peak: float) -> str:
    if not isinstance(model, FaceCLIP):
        return ""
    return f", {peak / PUBLISHED_PEAK_GB:.2f}x of the published structure's {PUBLISHED_PEAK_GB} GB in float32"


# family -> weights and config whose memory is measured, weights whose speed is, and how
FAMILIES = {
    "faceclip": (full_state, PUBLISHED, full_state, speed),
    "t5": (encode_t5.published_size_state, PUBLISHED_T5, encode_t5.wide_state, speed_t5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="faceclip")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", action="append", choices=("memory", "speed"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        return child(args)
    parts = set(args.only or ("memory", "speed"))
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, device {args.device}")
    whole, config, timed_weights, compare_speed = FAMILIES[args.family]
    if args.family == "t5":
        encode_t5.rounding()
    if "memory" in parts:
        peak_memory(args, whole(), config)
    if "speed" in parts:
        compare_speed(args, timed_weights())


if __name__ == "__main__":
    main()
