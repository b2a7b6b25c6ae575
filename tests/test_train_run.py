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
from faceclip.train import launch, resume, run_file, samples, towers
from faceclip.train.alignment import ENCODER_FILE
from faceclip.train.buckets import LeftOut
from faceclip.train.cached_sample import check
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
                box = [*picture.landmarks.min(0).tolist(), *picture.landmarks.max(0).tolist()]
                faces = [{"landmarks": picture.landmarks.tolist(), "box": box}]
                size = [picture.pixels.shape[1], picture.pixels.shape[0]]
                about = json.dumps({"caption": caption(place, i), "size": size, "faces": faces}).encode()
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
        return {**data, "json": self.about(size), "__key__": "k"}

    def about(self, size=(200, 120), *, box=(80, 33, 140, 93), landmarks=None) -> bytes:
        landmarks = np.array(TEMPLATE_112) / 112 * 60 + (80, 33) if landmarks is None else np.array(landmarks)
        faces = [{"box": [0, 0, 9, 9], "landmarks": [[0, 0]] * 5}, {"box": list(box), "landmarks": landmarks.tolist()}]
        return json.dumps({"caption": "a chef", "size": list(size), "faces": faces}).encode()

    def second_face(self, **about) -> dict:
        one = self.sample() | {"json": self.about(**about)}
        one["face1.png"] = one.pop("face0.png")
        return one

    def test_time_ids_tell_size_crop_and_target(self):
        made = samples.DiffusionSample(64, shapes=False)(self.second_face(), np.random.default_rng(0))
        height, width, top, left, *target = made["time_ids"].tolist()
        assert (height, width, target) == (120, 200, [64, 64])
        assert top == 0 and 0 < left <= 107 - 64  # the short side is scaled to 64, so the long one to 107
        assert made["picture"].shape == (3, 64, 64) and made["caption"] == "a chef"
        assert made["face"].shape == (3, 112, 112) and made["face"][:, 0, 0].tolist() == [255, 0, 0]

    def test_a_picture_keeps_its_shape(self):
        made = samples.DiffusionSample(64)(self.second_face(), np.random.default_rng(0))
        assert made["picture"].shape == (3, 48, 80)  # SDXL's 1280 x 768 at 64 px
        assert made["time_ids"].tolist() == [120, 200, 0, 0, 48, 80]

    @pytest.mark.parametrize("shapes", [True, False])
    def test_the_cells_of_the_given_face_follow_the_cut(self, shapes):
        """The second face of two is there; the photo is scaled and cut at some left, and all of the face is in it."""
        for seed in range(5):
            decode = samples.DiffusionSample(64, face_cells=True, shapes=shapes)
            made = decode(self.second_face(), np.random.default_rng(seed))
            scale, left = (0.4 if shapes else 64 / 120), made["time_ids"][3].item()
            height, width = (side // 8 for side in made["picture"].shape[1:])
            start, end = 80 * scale - left, 140 * scale - left
            across, down = np.arange(width) * 8 + 4, np.arange(height) * 8 + 4
            for far, cells in ((0.5, made["face_cells"][0] == 1), (-0.5, made["face_cells"][0] == 0)):  # but the edges
                columns = (start + far < across) & (across < end - far)
                rows = (33 * scale + far < down) & (down < 93 * scale - far)
                inside = torch.from_numpy(rows[:, None] & columns)
                assert cells[inside if far > 0 else ~inside].all()
            assert 0 <= start and end <= 8 * width

    def test_a_face_may_be_of_another_photo_of_the_person(self):
        one = self.sample()
        one["face0.other0.png"] = png(np.full((448, 448, 3), (0, 0, 255), "uint8"))
        faces = [{"person": "ada", "box": [80, 30, 140, 90]}]
        one["json"] = json.dumps({"caption": "a chef", "size": [200, 120], "faces": faces}).encode()
        for decode in (samples.AlignmentSample, samples.DiffusionSample):
            blue = []
            for seed in range(60):
                made = decode(64, paired=0.5)(one, np.random.default_rng(seed))
                blue.append(made["face"][2, 0, 0].item() == 255)
            assert 18 < sum(blue) < 42
        assert decode(64)(one, np.random.default_rng(0))["face"][0, 0, 0] == 255  # its own
        person = samples.AlignmentSample(64)(one, np.random.default_rng(0))["person"]
        assert person >= 0 and samples.AlignmentSample(64)(self.sample(), np.random.default_rng(0))["person"] == -1
        with pytest.raises(InputError, match="knows no people, which paired needs"):
            samples.AlignmentSample(64, paired=0.5)(self.sample(), np.random.default_rng(0))

    def test_a_mirrored_picture_is_mirrored_whole(self):
        one = self.second_face()
        plain, flipped = None, None
        for seed in range(9):  # the cut is the whole photo here
            made = samples.DiffusionSample(64, face_cells=True, flip=True)(one, np.random.default_rng(seed))
            if made["face_cells"][0, :, :4].sum() > made["face_cells"][0, :, -4:].sum():
                flipped = made
            else:
                plain = made
        assert torch.equal(flipped["picture"], plain["picture"].flip(-1))
        assert torch.equal(flipped["face_cells"], plain["face_cells"].flip(-1))

    @pytest.mark.parametrize("faces", [[], [{}], [{"landmarks": [[1, 2]]}], [{"landmarks": "here"}]])
    def test_a_weight_for_faces_needs_their_landmarks(self, faces):
        about = {"caption": "a chef", "size": [200, 120], "faces": [{**one, "box": [0, 0, 9, 9]} for one in faces]}
        one = self.sample() | {"json": json.dumps(about).encode()}
        with pytest.raises(InputError, match="landmarks of face 0" if faces else "box of face 0"):
            samples.DiffusionSample(64, face_cells=True)(one, np.random.default_rng(0))

    def test_a_smaller_picture_is_left_out(self):
        with pytest.raises(LeftOut, match="150 x 90 px do not fill a picture of 160 x 96 px") as told:
            samples.DiffusionSample(128).group(self.sample((150, 90)) | {"json": self.about((150, 90))})
        assert told.value.kind == "small"

    def test_what_the_json_tells_must_be_so(self):
        with pytest.raises(InputError, match=r"tells a picture of \(300, 180\) px, but it has \(200, 120\)"):
            samples.DiffusionSample(64)(self.second_face(size=(300, 180)), np.random.default_rng(0))

    def test_the_whole_picture_is_seen_by_clip(self):
        made = samples.AlignmentSample(100)(self.sample(), np.random.default_rng(0))
        assert made["picture"].shape == (3, 100, 100)
        assert made["picture"][:, :19].max() == 0 and made["picture"][:, 21:79].max() > 230  # bars above and below
        assert made["joint_ids"].shape == made["ids"].shape == (77,)

    def test_a_large_jpeg_is_unpacked_small_and_shows_the_same(self):
        one = self.second_face(size=(1600, 960), box=(640, 264, 1120, 744))
        picture = Image.linear_gradient("L").resize((1600, 960)).convert("RGB")
        for kind, name in (("JPEG", "jpg"), ("PNG", "png")):
            data = io.BytesIO()
            picture.save(data, kind, **({"quality": 95} if kind == "JPEG" else {}))
            one[name] = data.getvalue()
        png = {name: value for name, value in one.items() if name != "jpg"}
        for decode in (samples.DiffusionSample(64), samples.AlignmentSample(64)):
            found = [decode(given, np.random.default_rng(0)) for given in (one, png)]
            assert found[0]["picture"].shape == found[1]["picture"].shape
            assert (found[0]["picture"].float() - found[1]["picture"].float()).abs().max() < 6

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


@pytest.mark.parametrize("kind", ["a", "b"])
def test_held_out_samples_are_looked_at_and_the_best_is_kept(trained, tmp_path, caplog, kind, yunet_path):
    """At both steps, and never those that are trained on."""
    (trained / "held-out").mkdir(exist_ok=True)
    shutil.copy(trained / "shard-1.tar", trained / "held-out" / "some.tar")
    text = (trained / f"{kind}.toml").read_text()
    text = text.replace('output = "', f'output = "{tmp_path}/').replace('["shard-*.tar"]', '["shard-0.tar"]')
    text = text.replace("log_every = 1", "log_every = 1\npeak_tflops = 0.001")
    more = f'[validation]\nshards = ["held-out/*.tar"]\nevery = 1\nbatches = 1\nsteps = 2\ndetector = "{yunet_path}"\n'
    (trained / "watched.toml").write_text(text.replace(f"{tmp_path}/", f"{tmp_path}/watched-") + more)
    with caplog.at_level("INFO"):
        assert command_line.main(["train", str(trained / "watched.toml")]) == 0
    stage = "alignment" if kind == "a" else "diffusion"
    output = tmp_path / f"watched-{stage}"
    told = [record.getMessage() for record in caplog.records if "val_" in record.getMessage()]
    assert [line.split(":")[0] for line in told] == ["step 1", "step 2"]
    words = {"a": ("l_face ", "l_image_top1 "), "b": ("error_50 ", "error_950 ", "likeness ")}[kind]
    assert all(f"val_{word}" in line for word in words for line in told)
    assert any(" mfu " in record.getMessage() for record in caplog.records)
    assert resume.latest(output / "best") is not None and len(list((output / "best").iterdir())) == 1
    if kind == "b":
        sheets = sorted((output / "samples").iterdir())
        assert [sheet.name for sheet in sheets] == ["step-00000001.png", "step-00000002.png"]
        assert Image.open(sheets[0]).size == (128, 256)  # four faces and pictures of 64 px
    (trained / "watched.toml").write_text(text + more.replace("held-out/*", "shard-0"))
    assert command_line.main(["train", str(trained / "watched.toml")]) == 1


@pytest.mark.parametrize("kind", ["a", "b"])
def test_a_cache_is_trained_on_without_the_frozen_models(trained, tmp_path, capsys, monkeypatch, kind):
    """Both stages: what the loss gets of a cached sample is what it gets of the sample."""
    out = trained / f"cache-{kind}"
    assert command_line.main(["cache", str(trained / f"{kind}.toml"), str(out), "--copies", "2", "--batch", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["shard-0.tar", "shard-1.tar"]
    before = (out / "shard-0.tar").stat().st_mtime_ns
    assert command_line.main(["cache", str(trained / f"{kind}.toml"), str(out)]) == 0  # goes on where it was
    assert (out / "shard-0.tar").stat().st_mtime_ns == before
    text = (trained / f"{kind}.toml").read_text()
    text = text.replace('["shard-*.tar"]', f'["{out.name}/*.tar"]\ncached = true').replace("\nvae =", "\n# vae =")
    (trained / "cached.toml").write_text(text.replace('output = "', f'output = "{tmp_path}/'))
    assert command_line.main(["train", str(trained / "cached.toml")]) == 0
    _, module, data = launch.prepared(run_file.load(trained / "cached.toml"))
    batch = next(data.batches(0, 1, 4, 0))
    assert module(batch)["loss"].isfinite()
    with pytest.raises(InputError, match="was cached with another model.face"):
        check(str(out / "shard-0.tar"), {"model.faceclip": "0" * 64, "model.face": "0" * 64})
    if kind == "b":
        assert module.vae is None and batch["latent_mean"].shape[1] == 4 and "face_cells" in batch
    else:
        assert not module.vision and set(batch) > {"class_token", "text_feature_l", "image_feature_g", "person"}
    (trained / "cached.toml").write_text(text.replace(f"{out.name}/*", "shard-*"))
    assert command_line.main(["train", str(trained / "cached.toml")]) == 1
    assert "is no shard that `faceclip cache` wrote" in capsys.readouterr().err
