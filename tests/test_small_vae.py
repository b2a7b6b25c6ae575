"""The small VAE: its padded TAESD computes the same, its latents have unit variance, and it learns."""

import pytest
import torch
import torch.nn.functional as F

from faceclip.errors import CheckpointError, InputError
from faceclip.files.state_dict import read_state_dict, write_safetensors
from faceclip.small import models as small
from faceclip.train.small import vae as small_vae

SMALL = small_vae.SmallVAEConfig(
    encoder_widths=(4, 6, 8, 8), encoder_blocks=(0, 1, 0, 2), decoder_widths=(5, 6, 8, 8), decoder_blocks=(1, 0, 1, 2)
)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return small_vae.SmallVAE(SMALL)


@pytest.fixture
def pictures():
    """Ten pictures of two coloured halves, uint8 [10, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randint(256, (10, 3, 1, 2), generator=generator, dtype=torch.uint8)
    return colours.repeat_interleave(16, dim=3).expand(-1, -1, 32, -1).contiguous()


class Taesd:
    """TAESD as plain functions of its state dict."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, stride=1):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), stride=stride, padding=1)

    def block(self, name, x):
        y = F.relu(self.conv(f"{name}.conv.0", x))
        y = F.relu(self.conv(f"{name}.conv.2", y))
        return F.relu(self.conv(f"{name}.conv.4", y) + x)

    def encode(self, x):
        name = "taesd_encoder"
        x = self.block(f"{name}.1", self.conv(f"{name}.0", x))
        for first in (2, 6, 10):
            x = self.conv(f"{name}.{first}", x, stride=2)
            for i in (1, 2, 3):
                x = self.block(f"{name}.{first + i}", x)
        return self.conv(f"{name}.14", x) / self.state["vae_scale"] + self.state["vae_shift"]

    def decode(self, z):
        name = "taesd_decoder"
        z = (z - self.state["vae_shift"]) * self.state["vae_scale"]
        x = F.relu(self.conv(f"{name}.1", torch.tanh(z / 3) * 3))
        for first in (3, 8, 13):
            for i in (0, 1, 2):
                x = self.block(f"{name}.{first + i}", x)
            x = self.conv(f"{name}.{first + 4}", F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv(f"{name}.19", self.block(f"{name}.18", x))


@pytest.mark.parametrize("config", [SMALL, small_vae.SmallVAEConfig()], ids=["small", "default"])
@torch.no_grad()
def test_padded_taesd_computes_the_same(config, pictures):
    torch.manual_seed(0)
    vae = small_vae.SmallVAE(config)
    vae.into.bias.normal_()  # whatever training may make of the biases
    vae.from_latent.bias.normal_()
    vae.calibrate(pictures)
    vae.eval()
    state = small_vae.to_taesd(vae)
    assert {key: tuple(value.shape) for key, value in state.items() if "_scale" not in key and "_shift" not in key} == (
        small.vae_shapes()
    )
    host, floats = Taesd(state), pictures.float() / 255
    latents = vae.encode(floats)
    torch.testing.assert_close(host.encode(floats) * small.LATENT_FACTOR, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(host.decode(latents / small.LATENT_FACTOR), vae.decode(latents), atol=1e-5, rtol=1e-5)


def test_latents_have_mean_0_and_variance_1(vae, pictures):
    in_training = vae.encode(pictures.float() / 255)
    vae.calibrate(pictures, batch_size=3)
    for latents in (in_training, vae.latents(pictures, batch_size=4)):
        assert latents.shape == (10, 4, 4, 4)
        assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert (latents.var(dim=(0, 2, 3), correction=0) - 1).abs().max() < 0.01
    assert vae.training  # as it was


def test_learns(pictures):
    torch.manual_seed(0)
    vae = small_vae.SmallVAE()
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    losses = []
    for _ in range(100):
        parts = vae({"pictures": pictures})
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["l1"].item())
    assert losses[-1] < losses[0] / 2
    vae.calibrate(pictures)
    assert small_vae.psnr(vae.eval().decode(vae.latents(pictures)), pictures.float() / 255) > 15


def test_crops_come_from_the_picture(pictures):
    vae = small_vae.SmallVAE(small_vae.SmallVAEConfig(crop=16))
    rows = torch.arange(32, dtype=torch.uint8)[:, None].expand(10, 3, 32, 32)
    crops = vae._crop(rows)
    assert crops.shape == (10, 3, 16, 16)
    assert all(crop[0, -1, 0] - crop[0, 0, 0] == 15 for crop in crops)
    assert len({int(crop[0, 0, 0]) for crop in crops}) > 1


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 4, 32, 32), (3, 32, 32), (0, 3, 32, 32), (1, 3, 0, 8)])
def test_wrong_pictures_are_refused(vae, shape):
    with pytest.raises(InputError, match=r"wanted \[B, 3, H, W\]"):
        vae.encode(torch.zeros(shape))
    with pytest.raises(InputError, match="multiples of 8"):
        vae({"pictures": torch.zeros(shape)}) if len(shape) == 4 else vae.calibrate(torch.zeros(shape))


def test_wrong_latents_are_refused(vae):
    with pytest.raises(InputError, match=r"\[1, 3, 4, 4\], wanted \[B, 4"):
        vae.decode(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    "wrong",
    [{"crop": 20}, {"encoder_widths": (16, 32, 64, 65)}, {"decoder_blocks": (2, 1, 1, 1)}, {"encoder_blocks": (1, 1)}],
)
def test_what_does_not_fit_taesd_is_refused(wrong):
    with pytest.raises(InputError, match="wanted"):
        small_vae.SmallVAEConfig(**wrong)


def test_save_and_load(vae, pictures, tmp_path):
    vae.calibrate(pictures)
    small_vae.save(vae, tmp_path / "vae.safetensors")
    again = small_vae.load(tmp_path / "vae.safetensors")
    assert again.config == SMALL
    assert torch.equal(again.latents(pictures), vae.latents(pictures))


def test_another_file_is_refused(vae, tmp_path):
    write_safetensors({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {})
    with pytest.raises(CheckpointError, match="no small VAE"):
        small_vae.load(tmp_path / "a.safetensors")
    small_vae.save(vae, tmp_path / "vae.safetensors")
    state, metadata = read_state_dict(tmp_path / "vae.safetensors")
    write_safetensors({k: v for k, v in state.items() if k != "out.bias"}, tmp_path / "b.safetensors", metadata)
    with pytest.raises(CheckpointError, match="out.bias"):
        small_vae.load(tmp_path / "b.safetensors")


@torch.no_grad()
def test_what_ships_is_trimmed_and_read_back(pictures):
    torch.manual_seed(0)
    vae = small_vae.SmallVAE(SMALL)
    vae.calibrate(pictures)
    vae.eval()
    state = small_vae.to_taesd(vae)
    short = small_vae.trimmed(state)
    assert sum(value.numel() for value in short.values()) < 0.1 * sum(value.numel() for value in state.values())
    for key, value in small.padded_vae(short).items():
        assert torch.equal(value, state[key]), key
    again, floats = small_vae.of_taesd(short, SMALL), pictures.float() / 255
    torch.testing.assert_close(again.encode(floats), vae.encode(floats), atol=1e-5, rtol=1e-5)
    latents = vae.encode(floats)
    torch.testing.assert_close(again.decode(latents), vae.decode(latents), atol=1e-5, rtol=1e-5)


def test_a_decoder_made_deeper_begins_as_it_was_and_trains_alone(vae, pictures):
    vae.calibrate(pictures)
    deeper = small_vae.with_deeper_decoder(vae, (1, 2, 3, 3))
    latents, floats = torch.randn(2, 4, 4, 4), pictures.float() / 255
    vae.eval()
    torch.testing.assert_close(deeper.decode(latents), vae.decode(latents))
    torch.testing.assert_close(deeper.train().encode(floats), vae.encode(floats))
    deeper({"pictures": pictures})["loss"].backward()
    trained = {name.split(".")[0] for name, p in deeper.named_parameters() if p.grad is not None}
    assert trained == {"from_latent", "decoder", "ups", "out"}
