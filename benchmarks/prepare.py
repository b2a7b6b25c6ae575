"""What `prepare` costs for a photo, on one core: CPU seconds by part, and whether the quick look misses a face.

    python -m benchmarks.prepare PHOTO... --detector face_detection_yunet_2023mar.onnx [--side 2000]

Each photo is enlarged or made smaller to the given longer side, with its faces, and saved as a JPEG.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from faceclip.faces.detect.yunet import YuNet
from faceclip.files.picture import open_picture, upright_rgb
from faceclip.train.prepare.crops import Filter, prepare_photo
from faceclip.train.prepare.photos import Photo

_REPEATS = 5


def cpu(action) -> float:
    """Median CPU seconds of a call, after a first one."""
    seconds = []
    for _ in range(_REPEATS + 1):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def same(whole, quick, smallest: float) -> tuple[int, int]:
    """How many of the faces of at least this size the quick look found as well, and how many there are."""
    wanted = [one for one in whole if one.score >= 0.6 and min(one.width, one.height) >= smallest]
    eyes = [np.linalg.norm(np.subtract(*one.landmarks[:2])) for one in wanted]
    found = [
        any(np.abs(np.subtract(one.landmarks, other.landmarks)).max() < 0.15 * eye for other in quick)
        for one, eye in zip(wanted, eyes, strict=True)
    ]
    return sum(found), len(found)


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--side", type=int, default=2000)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    detector, wanted = YuNet(arguments.detector), Filter(resolution=0)
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.photos:
            image = upright_rgb(open_picture(path.read_bytes(), path.name))
            scale = arguments.side / max(image.size)
            image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.LANCZOS)
            data = io.BytesIO()
            image.save(data, "JPEG", quality=92)
            photo = Path(folder, f"{path.stem}.jpg")
            photo.write_bytes(data.getvalue())
            photo.with_suffix(".txt").write_text("a person")
            pixels = np.asarray(image)
            one = Photo(photo, Path(folder), photo.name)
            parts = {
                "whole": lambda one=one: prepare_photo(one, detector, wanted),
                "decoding": lambda data=data: np.asarray(open_picture(data.getvalue()).convert("RGB")),
                "every look": lambda pixels=pixels: detector.detect(pixels),
                "quick look": lambda pixels=pixels: detector.detect(pixels, wanted.min_face),
            }
            told = ", ".join(f"{name} {cpu(action):.3f} s" for name, action in parts.items())
            looks = detector.detect(pixels), detector.detect(pixels, wanted.min_face)
            found, faces = same(*looks, wanted.min_face)
            print(f"{path.name}, {image.size[0]} x {image.size[1]} px: {told}; {found} of {faces} faces", flush=True)


if __name__ == "__main__":
    main()
