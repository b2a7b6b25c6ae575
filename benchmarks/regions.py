"""What Add Person's `region_only` changes: the same seeds with and without it, on the small model.

    COMFYUI_PATH=... FACECLIP_YUNET=... python -m benchmarks.regions [--seeds 12] [--sheet FILE.png]

The example with two people, in a real ComfyUI. Told are the likeness of the face most like each of the two (by Face
Similarity; pictures without a face count as 0), how far the pictures differ, and the time of a picture. --sheet draws
each pair, without above with.
"""

import argparse
import copy
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from faceclip.comfy.server import ComfyServer
from faceclip.comfy.workflow import example, for_small_model
from faceclip.install.published import YUNET
from faceclip.small.models import write_small_model
from faceclip.small.pictures import place_examples


def prompt_of(seed: int, region_only: bool) -> dict:
    prompt = copy.deepcopy(for_small_model("two_people", json.loads(example("two_people").read_text("utf-8"))))
    prompt["sample"]["inputs"]["noise_seed"] = seed
    # YuNet finds no face of 50 px; twice as large it does.
    large = {"image": ["decode", 0], "upscale_method": "lanczos", "scale_by": 3.0}
    prompt["large"] = {"class_type": "ImageScaleBy", "inputs": large}
    for place, identity in (("left", "identity"), ("right", "identity_2")):
        prompt[place]["inputs"]["region_only"] = region_only
        wired = {"image": ["large", 0], "identity": [identity, 0], "detector": ["detector", 0]}
        others = {"faceclip": ["faceclip", 0], "judge": "FaceCLIP's face encoder", "min_score": 0.3}
        prompt[f"like {place}"] = {"class_type": "FaceCLIPSimilarity", "inputs": {**wired, **others}}
    return prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    comfyui, yunet = os.environ.get("COMFYUI_PATH"), os.environ.get("FACECLIP_YUNET")
    if not comfyui or not yunet:
        sys.exit("COMFYUI_PATH names ComfyUI, and FACECLIP_YUNET the face detector's file; one is missing")
    likeness, seconds, pictures = {False: [], True: []}, {False: [], True: []}, {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for one in ("input", f"models/{YUNET.folder}"):
            (base / one).mkdir(parents=True)
        write_small_model(base / "models")
        place_examples(base / "input")
        shutil.copy(yunet, base / "models" / YUNET.folder / YUNET.name)
        with ComfyServer(Path(comfyui), base) as server:
            for seed in range(arguments.seeds + 1):
                for region_only in (False, True):
                    result = server.client.run(prompt_of(seed, region_only))
                    if not seed:  # loads what is loaded once
                        continue
                    told = [result.outputs[f"like {place}"]["faceclip_scores"] for place in ("left", "right")]
                    found = [scores[0]["scores"] for scores in told]
                    likeness[region_only] += [max(scores, default=0.0) for scores in found]
                    seconds[region_only].append(result.seconds)
                    data = server.client.view(result.images("save")[0])
                    pictures[region_only].append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    print(f"two people, {arguments.seeds} seeds, load of the machine {os.getloadavg()[1]:.1f}")
    for region_only, values in likeness.items():
        missing = sum(value == 0 for value in values)
        mean, took = statistics.mean(values), statistics.median(seconds[region_only])
        found = f"{missing} of {len(values)} not found"
        print(f"  region_only {region_only}: likeness {mean:.3f}, {found}; {took:.2f} s a picture")
    apart = [np.abs(a.astype(float) - b).mean() for a, b in zip(*pictures.values(), strict=True)]
    print(f"  the pictures of a seed differ by {statistics.mean(apart):.1f} of 255 on average")
    if arguments.sheet:
        rows = [np.concatenate(side, axis=1) for side in pictures.values()]
        Image.fromarray(np.concatenate(rows, axis=0)).save(arguments.sheet)


if __name__ == "__main__":
    main()
