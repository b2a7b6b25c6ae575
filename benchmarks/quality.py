"""What faceclip/faces/quality.py measures on real faces, blurred and shrunk: where its thresholds come from.

    python -m benchmarks.quality [--yunet FILE]

Eight faces: the group of six and the portrait that come with insightface, and scikit-image's astronaut. Two of the six
have their heads turned. A blur is given in px of the face's aligned 112 px crop, so that it means the same for every
face; a shrunk face by the width of its box. Each copy is detected anew. `moved` is how far its landmarks lie from those
of the original, on average, in px of the 112 px crop. Ends with the range of each figure over all faces.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from faceclip.faces.align import face_matrix
from faceclip.faces.detect.yunet import YuNet
from faceclip.faces.face import DEFAULT_MIN_SCORE, align_faces
from faceclip.faces.quality import measure
from faceclip.install import places

BLURS = (0.5, 1, 1.5, 2, 3, 4)
WIDTHS = (75, 50, 35, 25, 18, 12)
COLUMNS = ("score", "width", "eyes", "sharpness", "yaw", "moved")


def photos() -> dict[str, np.ndarray]:
    """Name -> uint8 [H, W, 3], RGB."""
    import skimage.data
    from insightface.data import get_image

    return {
        "group": get_image("t1", to_rgb=True),
        "hanks": get_image("Tom_Hanks_54745", to_rgb=True),
        "astronaut": skimage.data.astronaut(),
    }


def cut_out(picture: np.ndarray, one) -> tuple[np.ndarray, np.ndarray]:
    """The face with about its own size around it, and where that part starts (x, y)."""
    x0, y0, x1, y1 = one.box
    start = np.array([max(0, int(x0 - one.width)), max(0, int(y0 - one.height))])
    return picture[start[1] : int(y1 + one.height), start[0] : int(x1 + one.width)], start


def copies(part: np.ndarray, one) -> dict[str, tuple[np.ndarray, float]]:
    """Name -> the part of the picture, changed, and by what factor it got smaller."""
    import cv2

    scale = float(np.hypot(*face_matrix(one.landmarks, 112)[:, 0]))
    made = {"as it is": (part, 1.0)}
    made |= {f"blur {sigma} px": (cv2.GaussianBlur(part, (0, 0), sigma / scale), 1.0) for sigma in BLURS}
    for width in WIDTHS:
        factor = width / one.width
        if factor < 1:
            made[f"width {width} px"] = (cv2.resize(part, None, fx=factor, fy=factor, interpolation=3), factor)
    return made


def figures(detector: YuNet, part: np.ndarray, factor: float, one, start: np.ndarray) -> tuple[float, ...] | None:
    """One row of the table; None where the face is not found."""
    centre = (np.array(one.centre) - start) * factor
    found = [face for face in detector.detect(part) if face.score >= DEFAULT_MIN_SCORE]
    if not found:
        return None
    again = min(found, key=lambda face: np.hypot(*(np.array(face.centre) - centre)))
    images = torch.from_numpy(part).float()[None] / 255
    (quality,) = measure(images, align_faces(images, [[again]]))
    scale = float(np.hypot(*face_matrix(one.landmarks, 112)[:, 0]))
    apart = np.array(again.landmarks) / factor + start - np.array(one.landmarks)
    moved = float(np.hypot(*apart.T).mean()) * scale
    return quality.score, min(quality.size), quality.eye_distance, quality.sharpness, quality.yaw, moved


def line(name: str, values) -> str:
    return f"{name:14}" + "".join(f"{value:>17}" for value in values)


def number(column: str, value: float) -> str:
    return f"{value:.{ {'score': 2, 'sharpness': 4}.get(column, 1) }f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yunet", type=Path, help="the YuNet file (default: FACECLIP_YUNET, or a models folder)")
    places.add_argument(parser)
    arguments = parser.parse_args()
    detector, table = YuNet(arguments.yunet or places.find_detector(arguments.models)), {}
    for name, picture in photos().items():
        faces = [face for face in detector.detect(picture) if face.score >= DEFAULT_MIN_SCORE]
        for place, one in enumerate(sorted(faces, key=lambda face: face.centre[0])):
            print(line(f"\n{name} {place}", COLUMNS))
            part, start = cut_out(picture, one)
            for what, (changed, factor) in copies(part, one).items():
                row = figures(detector, np.ascontiguousarray(changed), factor, one, start)
                table.setdefault(what, []).append(row)
                shown = ["not found"] if row is None else map(number, COLUMNS, row)
                print(line(what, shown))
    print(line("\nall faces", COLUMNS))
    for what, rows in table.items():
        seen = np.array([row for row in rows if row is not None])
        seen[:, 4] = np.abs(seen[:, 4])
        low, high = seen.min(axis=0), seen.max(axis=0)
        ranges = [f"{number(c, a)} to {number(c, b)}" for c, a, b in zip(COLUMNS, low, high, strict=True)]
        print(line(what, ranges), f"  {len(seen)} of {len(rows)} found")


if __name__ == "__main__":
    main()
