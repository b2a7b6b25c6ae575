"""What Align Face costs on one large photo: the processor's seconds of each step, and of checking the picture.

    python -m benchmarks.align [--yunet FILE] [--megapixels 12] [--runs 5]

The photo is the group of six that comes with insightface, enlarged. One thread; the median of the runs. The total is
given for pictures that are checked once, as the node does it, and for pictures that each step checks for itself.
"""

import argparse
import statistics
import time
from pathlib import Path

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
        found = detect_faces(batch, detector)
        took["detect"] = time.process_time() - start
        face = align_faces(batch, found)
        took["align"] = time.process_time() - start - sum(took.values())
        preview.draw_preview(batch, found, 0)
        took["preview"] = time.process_time() - start - sum(took.values())
        quality.report(batch, face)
        took["report"] = time.process_time() - start - sum(took.values())
        return took

    def once() -> dict[str, float]:
        start = time.process_time()
        batch = Pictures(images)
        return {"check": time.process_time() - start, **steps(batch)}

    steps(images)  # the first run loads what is loaded once
    print(f"{images.shape[2]} x {images.shape[1]} px, seconds of one core")
    for name, way in (("checked once", once), ("checked in each step", lambda: steps(images))):
        runs = [way() for _ in range(arguments.runs)]
        parts = ", ".join(f"{key} {statistics.median(run[key] for run in runs):.3f}" for key in runs[0])
        print(f"{name}: {statistics.median(sum(run.values()) for run in runs):.3f}  ({parts})")


if __name__ == "__main__":
    main()
