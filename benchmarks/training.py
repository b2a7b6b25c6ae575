"""What one step of training at the real sizes costs.

    python -m benchmarks.training [--part l|g|unet|lora|data|all] [--device cpu|cuda] [--batch N] [--steps N] ...

Parts: branch l or g of stage A with its CLIP vision tower, stage B's UNet with all that feeds it, whole and with a LoRA
on it, and reading samples.
Of the models, two things are told. Counted, without any memory: parameters, bytes, FLOPs of a step (multiplications and
additions of matrix products, convolutions and attention) and what is kept for the backward pass, all on the meta
device. Measured, with random weights, in a process of its own: seconds per step and peak memory, where the machine has
room for it; else it says what it lacks. Nothing here needs model files.
"""

import argparse
import contextlib
import io
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from unittest import mock

import torch
from torch import nn

from faceclip import FaceCLIP
from faceclip.faces.align import CROP_SIZE
from faceclip.model.config import PUBLISHED
from faceclip.model.encoder import JointConditioning
from faceclip.sampling.unet_config import SDXL
from faceclip.train.adapter import add_lora
from faceclip.train.alignment import Alignment, token_ids
from faceclip.train.diffusion import Diffusion, new_unet
from faceclip.train.run_file import Objective
from faceclip.train.towers import VisionTower

PARTS = ("l", "g", "unet", "lora")
LORA_RANK = 32
CLIPS = {"l": "ViT-L-14-quickgelu", "g": "ViT-bigG-14"}
CAPTION = "A woman wearing a blue denim shirt and khaki pants, on a rocky desert plateau."
PICTURE_SIZE = 224
GB, TERA = 1e9, 1e12
# Pieces of the modules by the beginning of their names, for the share of each in the FLOPs.
PIECES = {
    "face encoder": ("model.face_encoder",),
    "text tower": ("model.face_clip_l.transformer", "model.face_clip_g.transformer"),
    "fuser": ("model.face_clip_l.fuser", "model.face_clip_g.fuser"),
    "heads": ("heads.l", "heads.g"),
    "vision tower": ("vision.l", "vision.g"),
    "UNet": ("unet",),
    "VAE": ("vae.encoder",),
}


def build(part: str) -> nn.Module:
    """The module of a stage, its weights on the meta device."""
    with torch.device("meta"):
        if part in ("unet", "lora"):
            empty = JointConditioning(torch.zeros(1, 77, SDXL.cross_attention_dim), torch.zeros(1, SDXL.pooled_width))
            model = FaceCLIP(PUBLISHED, dtype=torch.bfloat16).eval()  # the published file's type, kept by stage B
            unet = new_unet(SDXL)
            if part == "lora":
                add_lora(unet, LORA_RANK)  # float32: there is no autocast here
            return Diffusion(unet, empty, Objective(), model, _vae())
        from open_clip import get_model_config
        from open_clip.model import CLIP

        config = {
            k: v for k, v in get_model_config(CLIPS[part]).items() if k in ("embed_dim", "vision_cfg", "text_cfg")
        }
        quick = get_model_config(CLIPS[part]).get("quick_gelu", False)
        vision = VisionTower(CLIP(**config, quick_gelu=quick).visual)
        model = FaceCLIP(PUBLISHED, dtype=torch.float32)
        delattr(model, "face_clip_g" if part == "l" else "face_clip_l")
        return Alignment(model, {part: vision}, branches=(part,))


def _vae() -> nn.Module:
    from diffusers import AutoencoderKL

    levels = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025,
    ).eval()


def fill(module: nn.Module, device: str) -> nn.Module:
    """Small random weights on the device; the noise levels, which the meta device has no values for, are made anew."""
    module = module.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
        for norm in (m for m in module.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)):
            if norm.weight is not None:
                norm.weight.fill_(1)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_var", ".std")):
                buffer.fill_(1)
    if isinstance(module, Diffusion):
        empty = JointConditioning(module.empty_embeddings, module.empty_pooled)
        module.schedule = Diffusion(module.unet, empty).schedule
    return module


def batch_of(part: str, size: int, resolution: int, device: str) -> dict:
    face = torch.zeros(size, 3, CROP_SIZE, CROP_SIZE, device=device)
    if part in ("unet", "lora"):
        picture = torch.zeros(size, 3, resolution, resolution, device=device)
        numbers = [float(resolution)] * 2
        ids = torch.tensor([[*numbers, 0.0, 0.0, *numbers]] * size, device=device)
        return {"picture": picture, "face": face, "caption": [CAPTION] * size, "time_ids": ids}
    picture = torch.zeros(size, 3, PICTURE_SIZE, PICTURE_SIZE, device=device)
    ids = {name: token_ids([CAPTION] * size, prefix).to(device) for name, prefix in (("ids", 0), ("joint_ids", 1))}
    return {"face": face, "picture": picture, **ids}


class Step:
    """One step as the engine does it: forward under autocast, backward, clipped gradients, AdamW."""

    def __init__(self, module: nn.Module, precision: str):
        self.module, self.precision = module, precision
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, fused=True)

    def __call__(self, batch: dict) -> None:
        device = self.weights[0].device.type
        mixed = self.precision == "bf16"
        autocast = torch.autocast(device, torch.bfloat16) if mixed else contextlib.nullcontext()
        with autocast:
            loss = self.module(batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextlib.contextmanager
def without_values():
    """Tensors without values say yes when asked whether a face is there, and that pictures are in range; attention
    without a mask is the fused kind that GPUs run, which keeps no table of all pairs."""
    attention = nn.functional.scaled_dot_product_attention

    def fused(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **options):
        if attn_mask is not None:
            return attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal)[0]

    with (
        mock.patch.object(torch.Tensor, "__bool__", lambda tensor: True),
        mock.patch.object(torch.Tensor, "__float__", lambda tensor: 0.0),
        mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()),
        mock.patch.object(nn.functional, "scaled_dot_product_attention", fused),
    ):
        yield


def count(part: str, arguments) -> dict:
    """What the meta device tells of a step: parameters, bytes, FLOPs by piece, bytes kept for the backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    module = build(part)
    if arguments.checkpointing:
        module.enable_gradient_checkpointing()
    weights = {weight.untyped_storage()._cdata for weight in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.device("meta"), without_values():
        batch = batch_of(part, arguments.batch, arguments.resolution, "meta")
        with FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = module(batch)["loss"]
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    root = f"{type(module).__name__}."
    by_name = {name.removeprefix(root): sum(kinds.values()) for name, kinds in forward.get_flop_counts().items()}
    pieces = {piece: sum(by_name.get(name, 0) for name in names) for piece, names in PIECES.items()}
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    frozen = [weight for weight in module.parameters() if not weight.requires_grad]
    return {
        "trained": sum(weight.numel() for weight in trained),
        "frozen": sum(weight.numel() for weight in frozen),
        "trained_bytes": sum(weight.nbytes for weight in trained),
        "frozen_bytes": sum(weight.nbytes for weight in frozen),
        "forward": forward.get_total_flops(),
        "backward": backward.get_total_flops(),
        "pieces": {piece: flops for piece, flops in pieces.items() if flops},
        "kept": sum(kept.values()),
    }


def show(part: str, found: dict, arguments) -> None:
    """The counts, in words."""
    own, size = found["trained_bytes"], arguments.batch
    print(f"  parameters: {found['trained'] / 1e6:,.0f} M trained, {found['frozen'] / 1e6:,.0f} M frozen")
    print(
        f"  GB: weights {(own + found['frozen_bytes']) / GB:.2f} (trained {own / GB:.2f}), gradients {own / GB:.2f}, "
        f"AdamW {2 * own / GB:.2f}, EMA {own / GB:.2f} if used"
    )
    print(f"  GB kept for the backward pass, in float32: {found['kept'] / size / GB:.3f} a sample")
    print(
        f"  TFLOP a sample: {(found['forward'] + found['backward']) / size / TERA:.3f} = forward "
        f"{found['forward'] / size / TERA:.3f} + backward {found['backward'] / size / TERA:.3f}"
    )
    pieces = ", ".join(f"{piece} {flops / size / TERA:.3f}" for piece, flops in found["pieces"].items())
    print(f"  TFLOP of the forward pass: {pieces}", flush=True)


def needed(found: dict) -> float:
    """Bytes of a step: weights, gradients, AdamW's two moments, what is kept, and 2 GB for the rest."""
    return found["frozen_bytes"] + 4 * found["trained_bytes"] + found["kept"] + 2 * GB


def free(device: str) -> float:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def measure(part: str, arguments) -> dict:
    """Seconds of a step after a first one, and the peak memory. Runs in a process of its own."""
    device = arguments.device
    torch.manual_seed(0)
    module = fill(build(part), device)
    if arguments.checkpointing:
        module.enable_gradient_checkpointing()
    step, batch = Step(module, arguments.precision), batch_of(part, arguments.batch, arguments.resolution, device)
    seconds = []
    for _ in range(arguments.steps + 1):
        start = time.perf_counter(), time.process_time()
        step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wall, cpu = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    return {"wall": wall, "cpu": cpu, "peak": peak}


def measure_apart(part: str, found: dict, arguments) -> None:
    """Starts `measure` where there is room, and tells what it found."""
    room = free(arguments.device)
    if needed(found) > 0.9 * room:
        print(f"  not measured: about {needed(found) / GB:.0f} GB needed, {room / GB:.0f} GB free", flush=True)
        return
    command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--part", part, "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"  not measured: the process ended with {done.returncode}")
        return
    told = json.loads(done.stdout.splitlines()[-1])
    flops = found["forward"] + found["backward"]
    busy = f" ({told['cpu']:.1f} s of CPU time)" if arguments.device == "cpu" else ""
    rate = flops / (told["cpu"] if arguments.device == "cpu" else told["wall"]) / TERA
    print(f"  measured: {told['wall']:.2f} s a step{busy}, {arguments.batch / told['wall']:.3f} samples/s")
    print(f"  {rate:.4f} TFLOP/s{' of CPU time' if busy else ''}, peak memory {told['peak'] / GB:.2f} GB", flush=True)


def measure_data() -> None:
    """CPU time to read a sample of stage A and of stage B, for photos of two sizes."""
    import numpy as np

    from faceclip.train.samples import AlignmentSample, DiffusionSample

    random = np.random.default_rng(0)
    face = _encoded((CROP_SIZE, CROP_SIZE), "PNG", random)
    for size in ((1536, 1024), (2048, 1365)):
        known = {"caption": CAPTION, "size": size, "faces": [{"box": [600, 200, 900, 600]}]}
        sample = {"jpg": _encoded(size, "JPEG", random), "face0.png": face, "json": json.dumps(known).encode()}
        for stage, decode in (("A", AlignmentSample()), ("B", DiffusionSample(1024))):
            seconds = []
            for _ in range(6):  # the first one loads the tokenizer
                start = time.process_time()
                decode(sample, random)
                seconds.append(time.process_time() - start)
            told = statistics.median(seconds[1:])
            print(f"stage {stage}, photos of {size[0]} x {size[1]} px: {told * 1000:.0f} ms of CPU time a sample")


def _encoded(size: tuple[int, int], kind: str, random) -> bytes:
    """A picture with soft shapes and some grain, as a photo has."""
    from PIL import Image

    coarse = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype="uint8")).resize(size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray((coarse + grain).clip(0, 255).astype("uint8")).save(file, kind, quality=92)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=(*PARTS, "data", "all"), default="all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="measured, after one that is not; 0: only count")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--resolution", type=int, default=1024, help="of stage B's pictures, px")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.part, arguments)))
        return
    if arguments.part in ("data", "all"):
        measure_data()
    if arguments.part == "data":
        return
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {where}, torch {torch.__version__}, batch {arguments.batch}, {arguments.precision}")
    for part in PARTS if arguments.part == "all" else (arguments.part,):
        size = f", {arguments.resolution} px" if part in ("unet", "lora") else ""
        print(f"{part}{size}{', gradient checkpointing' if arguments.checkpointing else ''}")
        found = count(part, arguments)
        show(part, found, arguments)
        if arguments.steps:
            measure_apart(part, found, arguments)


if __name__ == "__main__":
    main()
