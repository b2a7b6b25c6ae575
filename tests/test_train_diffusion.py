"""Stage B: the noise-prediction loss against a plain one, dropped conditioning, min-SNR, and a UNet that loads."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import small_training
import torch

from faceclip.errors import InputError
from faceclip.model.encoder import JointConditioning
from faceclip.sampling import schedule, unet_file
from faceclip.small import models as small
from faceclip.train.data import ArrayData
from faceclip.train.diffusion import UNET_FILE, Diffusion, config_of, new_unet, time_ids
from faceclip.train.engine import Settings, train
from faceclip.train.run_file import Objective

C, P = small.UNET.cross_attention_dim, small.UNET.pooled_width


def empty():
    return JointConditioning(torch.zeros(1, 77, C), torch.zeros(1, P))


def batch(size: int) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn(size, 4, 8, 8, generator=generator),
        "embeddings": torch.randn(size, 77, C, generator=generator),
        "pooled": torch.randn(size, P, generator=generator),
        "time_ids": time_ids((64, 96), (0, 16), (64, 64)).expand(size, -1),
    }


class Recorder(torch.nn.Module):
    """Stands in for the UNet: keeps what it is given, answers with zeros."""

    def forward(self, noisy, times, embeddings, added_cond_kwargs):
        self.seen = (noisy, times, embeddings, added_cond_kwargs)
        return type("Output", (), {"sample": torch.zeros_like(noisy)})


def test_the_unet_sees_the_noise_levels_of_the_published_schedule():
    recorder = Recorder()
    given = batch(64)
    losses = Diffusion(recorder, empty(), Objective(drop=0.0))(given)
    noisy, times, embeddings, added = recorder.seen
    assert torch.equal(embeddings, given["embeddings"]) and torch.equal(added["text_embeds"], given["pooled"])
    assert added["time_ids"][0].tolist() == [64, 96, 0, 16, 64, 64]
    levels = schedule.published_sigmas(schedule.MAX_STEPS)[:-1].flip(0)  # by time, from 1 on
    for row in range(64):
        if not 1 <= times[row] <= 999:
            continue
        sigma = levels[times[row] - 1]
        noise = (noisy[row] * (sigma**2 + 1).sqrt() - given["latent"][row]) / sigma
        assert abs(noise.std().item() - 1) < 0.25 and abs(noise.mean().item()) < 0.35
    assert abs(losses["loss"].item() - 1) < 0.1  # zeros were predicted, so the error is the noise itself


def test_conditioning_is_dropped_as_often_as_asked():
    recorder = Recorder()
    Diffusion(recorder, empty(), Objective(drop=0.25))(
        {**batch(1), **{k: v.expand(4000, *v.shape[1:]) for k, v in batch(1).items()}}
    )
    dropped = (recorder.seen[2] == 0).all(dim=(1, 2))
    assert torch.equal(dropped, (recorder.seen[3]["text_embeds"] == 0).all(dim=1))
    assert 0.22 < dropped.float().mean() < 0.28


def test_min_snr_weighs_easy_times_less():
    recorder = Recorder()
    module = Diffusion(recorder, empty(), Objective(min_snr_gamma=5.0))
    sigma = schedule.published_sigmas(schedule.MAX_STEPS)[:-1].flip(0)
    weights = module._weights(torch.tensor([1, 500, 999]))
    snr = 1 / sigma[[0, 499, 998]] ** 2
    torch.testing.assert_close(weights, snr.clamp(max=5.0) / snr, rtol=1e-4, atol=1e-6)


def test_a_unet_of_v_is_trained_to_it_and_weighted_alike():
    recorder, given = Recorder(), batch(64)
    recorder.config = SimpleNamespace(prediction_type="v_prediction")
    module = Diffusion(recorder, empty(), Objective(drop=0.0))
    torch.manual_seed(0)
    error = module(given)["error"].item()
    noisy, times, *_ = recorder.seen
    kept = module.schedule.alphas_cumprod[times][:, None, None, None]
    noise = (noisy - kept.sqrt() * given["latent"]) / (1 - kept).sqrt()
    v = kept.sqrt() * noise - (1 - kept).sqrt() * given["latent"]
    assert error == pytest.approx(v.square().mean().item(), rel=1e-4)  # zeros were predicted
    # The picture's squared error is v's over s + 1, and the noise's over s, at an SNR of s; it weighs min(s, 5).
    module = Diffusion(recorder, empty(), Objective(min_snr_gamma=5.0))
    snr = (kept / (1 - kept)).flatten()
    torch.testing.assert_close(module._weights(times), snr.clamp(max=5.0) / (snr + 1), rtol=1e-4, atol=1e-6)


def test_an_offset_moves_whole_channels():
    means = {}
    for offset in (0.0, 0.5):
        torch.manual_seed(0)
        recorder = Recorder()
        given = {**batch(64), "latent": torch.zeros(64, 4, 8, 8)}
        Diffusion(recorder, empty(), Objective(drop=0.0, noise_offset=offset))(given)
        late = recorder.seen[1] > 900  # nearly all noise
        means[offset] = recorder.seen[0][late].mean(dim=(2, 3)).std().item()
    assert means[0.0] < 0.25 and 0.3 < means[0.5] < 0.8, means


def test_the_face_counts_as_many_times_as_asked():
    """Half of the picture is face: at weight 3 its error counts 1.5 times, the other half's 0.5 times."""
    cells = torch.zeros(2, 1, 8, 8)
    cells[:, :, :, :4] = 1

    class Half(Recorder):
        """Predicts the noise exactly in the right half, so that all of the error is in the left one."""

        def forward(self, noisy, *others, **more):
            answer = super().forward(noisy, *others, **more)
            answer.sample[..., 4:] = noise[..., 4:]
            return answer

    given = {**batch(2), "face_cells": cells}
    losses = {}
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        torch.rand(2)  # which samples are dropped
        noise = torch.randn_like(given["latent"])
        torch.manual_seed(0)
        losses[weight] = Diffusion(Half(), empty(), Objective(drop=0.0, face_weight=weight))(given)
    assert losses[3.0]["loss"].item() == pytest.approx(1.5 * losses[1.0]["loss"].item(), rel=1e-5)
    assert losses[3.0]["error"] == losses[1.0]["error"]
    with pytest.raises(InputError, match="face_cells"):
        Diffusion(Recorder(), empty(), Objective(face_weight=3.0))(batch(2))


def test_a_few_pictures_are_overfitted_and_the_export_loads(tmp_path):
    torch.manual_seed(0)
    module = Diffusion(new_unet(small.UNET), empty(), Objective(drop=0.1, min_snr_gamma=5.0))
    few = {name: values.repeat_interleave(4, 0) for name, values in batch(2).items()}
    settings = Settings(tmp_path, steps=40, batch_size=8, learning_rate=2e-3, warmup=5, ema=0.9, log_every=10)
    result = train(module, ArrayData(few), settings, lambda trained, folder: trained.export(folder))
    assert result.losses["error"] < 0.75
    state, config = unet_file.read(tmp_path / UNET_FILE)
    assert config == small.UNET and state.keys() == module.unet.state_dict().keys()
    again = new_unet(config, state)
    assert config_of(again) == small.UNET
    of_v = replace(small.UNET, prediction_type="v_prediction")
    assert config_of(new_unet(of_v)) == of_v  # what an export writes down


def test_faces_and_pictures_go_through_the_frozen_models():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = small_training.new_model()
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13025,
    ).eval()
    recorder = Recorder()
    module = Diffusion(recorder, model.encode_prompt([""]), Objective(drop=0.0), model, vae)
    given = {**small_training.batch(2), "caption": ["a chef", "a diver"], "time_ids": batch(2)["time_ids"]}
    module(given)
    joint = model.encode_prompt(given["caption"], model.encode_identity(given["face"]))
    assert torch.equal(recorder.seen[2], joint.embeddings) and torch.equal(
        recorder.seen[3]["text_embeds"], joint.pooled
    )
    assert recorder.seen[0].shape == (2, 4, 16, 16)
    # A run in bf16 leaves them as they are when pictures are made.
    torch.manual_seed(1)
    latent = module.latent(given)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.latent(given), latent)
        assert torch.equal(module.conditioning(given)[0], joint.embeddings)
    assert not [name for name, p in module.named_parameters() if p.requires_grad]
    # Face and text are left out apart.
    texts, faces = given["caption"], model.encode_identity(given["face"])
    for left_out, wanted in (
        ({"drop_face": 0.999999}, model.encode_prompt(texts)),
        ({"drop_text": 0.999999}, model.encode_prompt(["", ""], faces)),
        ({"drop_face": 0.999999, "drop_text": 0.999999}, model.encode_prompt(["", ""])),
    ):
        apart = Diffusion(recorder, model.encode_prompt([""]), Objective(drop=0.0, **left_out), model, vae)
        assert torch.equal(apart.conditioning(given)[0], wanted.embeddings)
    with pytest.raises(InputError, match="drop_face and drop_text need faces and captions"):
        Diffusion(recorder, empty(), Objective(drop_face=0.5))(batch(2))
    with pytest.raises(InputError, match="no VAE"):
        Diffusion(recorder, empty(), model=model)(given)
    with pytest.raises(InputError, match="no FaceCLIP"):
        Diffusion(recorder, empty(), vae=vae)(given)
