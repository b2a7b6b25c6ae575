"""`python -m faceclip train RUN.toml`: both stages on shards of drawn people, from files to files that load."""

import dataclasses
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import small_training
import torch
from golden_t5 import tiny_t5_model
from PIL import Image

import faceclip
from faceclip import __main__ as command_line
from faceclip.errors import InputError
from faceclip.faces.align import TEMPLATE_112, align
from faceclip.sampling import unet_file
from faceclip.small import models as small
from faceclip.train import launch, run_file, samples, towers
from faceclip.train.alignment import ENCODER_FILE
from faceclip.train.diffusion import UNET_FILE, new_unet
from faceclip.train.small.cartoons.character import identity
from faceclip.train.small.cartoons.render import render
from faceclip.train.small.cartoons.scene import caption, scene

SMALL_UNET = dataclasses.replace(small.UNET, cross_attention_dim=48, projection_class_embeddings_input_dim=32 + 6 * 256)
RUN = """
kind = "{kind}"
[run]
output = "{kind}"
steps = 2
batch_size = 4
save_every = 1
log_every = 1
[data]
shards = ["shard-*.tar"]
workers = 0
[model]
"""


def png(pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of four people, the towers, a UNet and a VAE."""
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("run")
    for shard in range(2):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for i in range(4):
                person, place = identity(1000 * shard + i), scene(10 * shard + i)
                picture = render(person, place)
                face = align(picture.pixels.astype("float32") / 255, picture.landmarks)
                faces = [{"landmarks": picture.landmarks.tolist()}]
                about = json.dumps({"caption": caption(place, i), "faces": faces}).encode()
                face = png((face * 255).round().astype("uint8"))
                for name, data in (("png", png(picture.pixels)), ("face0.png", face), ("json", about)):
                    entry = tarfile.TarInfo(f"{shard}{i:04d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    small_training.write_towers(folder)
    torch.manual_seed(0)
    unet_file.save(dict(new_unet(SMALL_UNET).state_dict()), SMALL_UNET, folder / "unet.safetensors")
    AutoencoderKL(
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")
    tower_lines = "\n".join(f'{name} = "{name}.safetensors"' for name in ("clip_l", "clip_g", "face"))
    (folder / "a.toml").write_text(RUN.format(kind="alignment") + tower_lines + "\nface_heads = 2\n")
    files = f'faceclip = "alignment/{ENCODER_FILE}"\nunet = "unet.safetensors"\nvae = "vae"\n'
    stage = "[diffusion]\nresolution = 64\nface_weight = 2.0\n"
    (folder / "b.toml").write_text(RUN.format(kind="diffusion") + files + stage)
    with pytest.MonkeyPatch.context() as patch:
        # Smaller than the published one.
        patch.setattr(towers.new_faceclip, "__defaults__", (small_training.FUSER, 0, 0.5))
        yield folder


@pytest.fixture(scope="module")
def trained(folder):
    """Stage A, then stage B on what it made."""
    assert command_line.main(["train", str(folder / "a.toml")]) == 0
    assert command_line.main(["train", str(folder / "b.toml")]) == 0
    return folder


def test_both_stages_write_files_that_load(trained):
    model = faceclip.load(trained / "alignment" / ENCODER_FILE)
    assert model.config == small_training.new_model().config
    state, sizes = unet_file.read(trained / "diffusion" / UNET_FILE)
    before, _ = unet_file.read(trained / "unet.safetensors")
    assert sizes == SMALL_UNET
    assert any(not torch.equal(value, before[key]) for key, value in state.items())


def test_a_finished_run_is_not_run_again(trained):
    path = trained / "alignment" / ENCODER_FILE
    before = path.read_bytes()
    assert command_line.main(["train", str(trained / "a.toml")]) == 0
    assert path.read_bytes() == before


def test_a_run_goes_on_as_what_it_was_begun_as(trained, capsys, caplog):
    text = (trained / "b.toml").read_text()
    changed = trained / "changed.toml"
    changed.write_text(
        text.replace("face_weight = 2.0", "face_weight = 3.0").replace("batch_size = 4", "batch_size = 2")
    )
    assert command_line.main(["train", str(changed)]) == 1
    said = capsys.readouterr().err
    assert "diffusion.face_weight was 2.0, is 3.0" in said and "--allow-change diffusion.face_weight" in said
    assert "batch_size" not in said.partition("Set it back")[0]  # which the engine tells of
    with caplog.at_level("WARNING"):
        assert command_line.main(["train", str(changed), "--allow-change", "diffusion.face_weight"]) == 0
    assert "Going on with a change: diffusion.face_weight was 2.0, is 3.0." in caplog.text
    assert command_line.main(["train", str(changed), "--allow-change", "face_weight"]) == 1
    assert "there is no such field; known are" in capsys.readouterr().err
    # Another encoder under the same name, and another shard.
    encoder = trained / "alignment" / ENCODER_FILE
    before = encoder.read_bytes()
    model = faceclip.load(encoder)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    faceclip.save(model, encoder, force=True)
    shutil.copy(trained / "shard-0.tar", trained / "shard-2.tar")
    try:
        assert command_line.main(["train", str(trained / "b.toml")]) == 1
    finally:
        encoder.write_bytes(before)
        (trained / "shard-2.tar").unlink()
    said = capsys.readouterr().err
    assert "model.faceclip was" in said and "data.shards was" in said
    assert command_line.main(["train", str(trained / "b.toml")]) == 0


def test_a_wrong_file_is_one_message(folder, capsys):
    (folder / "wrong.toml").write_text((folder / "a.toml").read_text().replace("batch_size", "batchsize"))
    assert command_line.main(["train", str(folder / "wrong.toml")]) == 1
    assert "did you mean 'batch_size'" in capsys.readouterr().err


def test_without_a_vision_tower_the_image_term_must_be_off(folder):
    text = (folder / "a.toml").read_text()
    model = text[: text.index("[model]")] + f'[model]\nfaceclip = "alignment/{ENCODER_FILE}"\n'
    (folder / "face_only.toml").write_text(model + "[alignment]\nimage = 0.0\n")
    settings = run_file.load(folder / "face_only.toml")
    assert not launch.build_alignment(settings).vision


class TestSamples:
    def sample(self, size=(200, 120)) -> dict:
        picture = Image.linear_gradient("L").resize(size).convert("RGB")
        face = Image.new("RGB", (448, 448), (255, 0, 0))
        pictures = {"png": picture, "face0.png": face}
        data = {}
        for name, image in pictures.items():
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            data[name] = buffer.getvalue()
        return {**data, "json": json.dumps({"caption": "a chef"}).encode(), "__key__": "k"}

    def test_time_ids_tell_size_crop_and_target(self):
        made = samples.DiffusionSample(64)(self.sample(), np.random.default_rng(0))
        height, width, top, left, *target = made["time_ids"].tolist()
        assert (height, width, target) == (120, 200, [64, 64])
        assert top == 0 and 0 < left <= 107 - 64  # the short side is scaled to 64, so the long one to 107
        assert made["picture"].shape == (3, 64, 64) and made["caption"] == "a chef"
        assert made["face"][:, 0, 0].tolist() == [1.0, 0.0, 0.0]

    def test_the_cells_of_the_given_face_follow_the_cut(self):
        """The second face of two is there; the picture is scaled to 64 / 120 and cut at some left."""
        one = self.sample()
        one["face1.png"] = one.pop("face0.png")
        upright = np.array(TEMPLATE_112) / 112 * 60  # its crop is 60 px wide
        faces = [{"landmarks": [[0, 0]] * 5}, {"landmarks": (upright + (70, 30)).tolist()}]
        one["json"] = json.dumps({"caption": "a chef", "faces": faces}).encode()
        for seed in range(5):
            made = samples.DiffusionSample(64, face_cells=True)(one, np.random.default_rng(seed))
            left = made["time_ids"][3].item()
            start, end = 70 * 64 / 120 - left, 130 * 64 / 120 - left
            columns = [c for c in range(8) if start < 8 * c + 4 < end]
            rows = [r for r in range(8) if 30 * 64 / 120 < 8 * r + 4 < 90 * 64 / 120]
            wanted = torch.zeros(1, 8, 8)
            wanted[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
            assert torch.equal(made["face_cells"], wanted)

    @pytest.mark.parametrize("faces", [[], [{}], [{"landmarks": [[1, 2]]}], [{"landmarks": "here"}]])
    def test_a_weight_for_faces_needs_their_landmarks(self, faces):
        one = self.sample() | {"json": json.dumps({"caption": "a chef", "faces": faces}).encode()}
        with pytest.raises(InputError, match="landmarks of face 0"):
            samples.DiffusionSample(64, face_cells=True)(one, np.random.default_rng(0))

    def test_a_smaller_picture_is_left_out(self):
        assert samples.DiffusionSample(128)(self.sample(), np.random.default_rng(0)) is None

    def test_the_whole_picture_is_seen_by_clip(self):
        made = samples.AlignmentSample(100)(self.sample(), np.random.default_rng(0))
        assert made["picture"].shape == (3, 100, 100)
        assert made["picture"][:, :19].max() == 0 and made["picture"][:, 21:79].max() > 0.9  # bars above and below
        assert made["joint_ids"].shape == made["ids"].shape == (77,)

    def test_what_is_missing_is_named(self):
        random = np.random.default_rng(0)
        for lost, words in (("png", "no picture"), ("face0.png", "no face")):
            broken = self.sample()
            del broken[lost]
            with pytest.raises(InputError, match=words):
                samples.AlignmentSample(64)(broken, random)


def test_the_sibling_family_is_refused(tmp_path):
    faceclip.save(tiny_t5_model(), tmp_path / "t5.safetensors")
    with pytest.raises(InputError, match="t5.safetensors is a FaceT5 encoder, whose training is not part of this pack"):
        towers.load_faceclip(tmp_path / "t5.safetensors")
