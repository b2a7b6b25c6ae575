"""Makes the template browser's picture of each example: what the example gives with the small model, and says so.

`python -m workflows.thumbnails` runs the prompts in api/ on the ComfyUI at --url, which must have this pack, its small
model and YuNet, and writes a NAME.jpg beside each template. What that model cannot draw `docs.screenshots` pictures.
"""

import argparse
import io
import json

from PIL import Image, ImageDraw

from faceclip.comfy.client import Client
from faceclip.comfy.workflow import for_small_model, small_variants

from .build import FOLDER, title_of

SIDE, STRIP, QUALITY = 384, 32, 85  # px, px, of JPEG
SAID = "drawn by the small model"
SAVES_FIRST = {"load_character": "saved_character"}  # what loads a person needs one to be there


def picture_of(client: Client, name: str) -> Image.Image:
    """The first picture that the example saves."""
    prompt = for_small_model(name, json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8")))
    saved = [image for image in client.run(prompt).images() if image["type"] == "output"]
    return Image.open(io.BytesIO(client.view(saved[0]))).convert("RGB")


def framed(picture: Image.Image, said: str = SAID) -> Image.Image:
    """The whole picture in a square, with a strip below that says what drew it, or what is seen."""
    factor = SIDE / max(picture.size)
    size = round(picture.width * factor), round(picture.height * factor)
    thumbnail = Image.new("RGB", (SIDE, SIDE), "#222")
    thumbnail.paste(picture.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    draw = ImageDraw.Draw(thumbnail)
    draw.rectangle((0, SIDE - STRIP, SIDE, SIDE), fill="#222")
    draw.text((SIDE / 2, SIDE - STRIP / 2), said, fill="#ddd", anchor="mm", font_size=18)
    return thumbnail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--url", default="http://127.0.0.1:8188", help="a ComfyUI with this pack (default: %(default)s)"
    )
    client = Client(parser.parse_args().url)
    for name in small_variants():
        if name in SAVES_FIRST:
            picture_of(client, SAVES_FIRST[name])
        path = FOLDER / f"{title_of(name)}.jpg"
        framed(picture_of(client, name)).save(path, quality=QUALITY)
        print(path)


if __name__ == "__main__":
    main()
