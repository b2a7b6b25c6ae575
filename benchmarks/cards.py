"""Which of the models is where on cards of 6 to 24 GB, on a RAM-backed device in the place of a GPU.

    python -m benchmarks.cards [--cards 6 8 12 16 24] [--threads 1]

A real ComfyUI (COMFYUI_PATH), an encoder and a UNet of random weights, smaller than the published ones by one factor;
what a card has beyond what ComfyUI keeps free for arithmetic is made smaller by it too. A prompt is encoded, two steps
of 64 x 64 sampled and decoded. Prints how much of each model is on the device while it works, and when the next one
does: 1 is all of it. Needs a C++ compiler.
"""

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]  # the device and random weights are the tests'

from inprocess import run_in_host  # noqa: E402
from seeded import seeded  # noqa: E402
from test_memory import DEVICE, write_encoder  # noqa: E402

from benchmarks import inside_cards  # noqa: E402
from faceclip.sampling import unet_file  # noqa: E402
from faceclip.sampling.unet_config import SDXL, expected_shapes  # noqa: E402
from faceclip.small import models as small  # noqa: E402

PUBLISHED_BYTES = 5.135e9  # of the UNet in bf16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=float, nargs="+", default=[6, 8, 12, 16, 24], metavar="GB")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, no GPU", flush=True)
    base = Path(tempfile.mkdtemp(prefix="faceclip-cards-"))
    small.write_small_model(base / "models")
    encoder, unet = base / "encoder.safetensors", base / "models" / "diffusion_models" / "random.safetensors"
    write_encoder(encoder, shared=True)
    sizes = replace(SDXL, block_out_channels=(32, 64, 128), attention_head_dim=(1, 1, 2))
    unet_file.save(seeded(expected_shapes(sizes), dtype=torch.bfloat16), sizes, unet)
    scale = unet.stat().st_size / PUBLISHED_BYTES
    print(f"encoder {encoder.stat().st_size / 2**20:.0f} MiB, UNet {unet.stat().st_size / 2**20:.0f} MiB", flush=True)
    given = (DEVICE, encoder, unet.name, small.VAE_FILE, args.cards, scale)
    host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": base, "threads": args.threads, "timeout": 1800}
    for mode, cards in run_in_host(inside_cards.cards, *given, **host).items():
        for card, told in cards.items():
            print(f"{mode:20} {card:>3} GB: " + ", ".join(f"{name} {value:g}" for name, value in told.items()))


if __name__ == "__main__":
    main()
