"""What Align Face costs on one large photo: the processor's seconds of each step, against what they cost at first.

    python -m benchmarks.align [--yunet FILE] [--megapixels 12] [--runs 5]

The photo is the group of six that comes with insightface, enlarged. One thread. Two ways take turns: what the node does
(checked once, a preview of at most 1600 px written as PNG the way the host does), and what it did at first (each step
checked the picture, and the preview had its size). Medians, and the median of the ratios within a turn.
"""

import argparse
import io
import os
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from faceclip.faces import preview, quality
from faceclip.faces.detect.yunet import YuNet
from faceclip.faces.face import align_faces, detect_faces
from faceclip.faces.pictures import Pictures
from faceclip.install import places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yunet", type=Path, help="the YuNet file (default: FACECLIP_YUNET, or a models folder)")
    places.add_argument(parser)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    import cv2
    import torch
    from insightface.data import get_image

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    photo = get_image("t1", to_rgb=True)
    scale = (arguments.megapixels * 1e6 / (photo.shape[0] * photo.shape[1])) ** 0.5
    images = torch.from_numpy(cv2.resize(photo, None, fx=scale, fy=scale)).float()[None] / 255
    detector = YuNet(arguments.yunet or places.find_detector(arguments.models))

    def steps(batch) -> dict[str, float]:
        took, start = {}, time.process_time()
        for name, step in (
            ("detect", lambda: detect_faces(batch, detector)),
            ("align", lambda: align_faces(batch, done["detect"])),
            ("preview", lambda: preview.draw_preview(batch, done["detect"], 0)),
            ("write", lambda: write(done["preview"])),
            ("report", lambda: quality.report(batch, done["align"])),
        ):
            done[name] = step()
            took[name] = time.process_time() - start - sum(took.values())
        return took

    def now() -> dict[str, float]:
        start = time.process_time()
        batch = Pictures(images)
        return {"check": time.process_time() - start, **steps(batch)}

    def at_first() -> dict[str, float]:
        start, shown = time.process_time(), preview.LONGEST_SIDE
        for _ in range(2):  # for the detector and the preview, where there is one pass of OpenCV's now
            (images[0].numpy() * 255).round().astype(np.uint8)
        more = time.process_time() - start
        preview.LONGEST_SIDE = max(images.shape)
        took = steps(images)
        preview.LONGEST_SIDE = shown
        return {"to 8 bits": more, **took}

    done: dict = {}
    steps(images)  # the first run loads what is loaded once
    turns = [(now(), at_first()) for _ in range(arguments.runs)]
    print(f"{images.shape[2]} x {images.shape[1]} px, seconds of one core; load {os.getloadavg()[1]:.1f}")
    for number, name in enumerate(("now", "at first")):
        runs = [turn[number] for turn in turns]
        parts = ", ".join(f"{key} {statistics.median(run[key] for run in runs):.3f}" for key in runs[0])
        print(f"{name}: {statistics.median(sum(run.values()) for run in runs):.3f}  ({parts})")
    print(f"ratio {statistics.median(sum(a.values()) / sum(b.values()) for a, b in turns):.2f}")


def write(pictures) -> None:
    """As the host's PreviewImage does it."""
    for picture in pictures:
        data = np.clip(255.0 * picture.numpy(), 0, 255).astype(np.uint8)
        Image.fromarray(data).save(io.BytesIO(), "PNG", compress_level=1)


if __name__ == "__main__":
    main()
