"""A LoRA on stage B's UNet: what it trains, what it leaves alone, and the file that other programs load."""

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft", reason="training's own requirements are not installed")

from test_train_diffusion import batch, empty

from faceclip.small import models as small
from faceclip.train.adapter import LORA_FILE, add_lora
from faceclip.train.data import ArrayData
from faceclip.train.diffusion import UNET_FILE, Diffusion, new_unet
from faceclip.train.engine import Settings, train
from faceclip.train.run_file import Objective


def test_a_lora_is_trained_beside_a_frozen_unet_and_its_file_is_what_was_trained(tmp_path):
    torch.manual_seed(0)
    plain = new_unet(small.UNET)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    tuned = new_unet(small.UNET, before)
    add_lora(tuned, 4)
    module = Diffusion(tuned, empty(), Objective(drop=0.1))
    given = {name: values.repeat_interleave(4, 0) for name, values in batch(2).items()}
    look = (given["latent"], torch.full((8,), 500), given["embeddings"])
    more = {"added_cond_kwargs": {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}}
    with torch.no_grad():
        wanted = plain(*look, **more).sample
        assert torch.equal(tuned(*look, **more).sample, wanted)  # it begins as nothing
    settings = Settings(
        tmp_path, steps=6, batch_size=8, learning_rate=2e-2, warmup=0, ema=0.5, rates={"up_blocks": 0.5}
    )
    train(module, ArrayData(given), settings, lambda trained, folder: trained.export(folder))
    assert not (tmp_path / UNET_FILE).exists()
    state = load_file(tmp_path / LORA_FILE)
    merged = dict(before)
    for key in before:
        name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        if f"{name}.lora_up.weight" in state:
            up, down = state.pop(f"{name}.lora_up.weight"), state.pop(f"{name}.lora_down.weight")
            assert state.pop(f"{name}.alpha") == len(down) == 4
            assert key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
            merged[key] = before[key] + up @ down
    assert not state
    with torch.no_grad():
        found = new_unet(small.UNET, merged)(*look, **more).sample
        torch.testing.assert_close(found, tuned(*look, **more).sample, rtol=1e-4, atol=1e-5)
        assert (found - wanted).abs().max() > 0.01 * wanted.abs().max()


def test_what_is_frozen_may_be_bf16():
    unet = new_unet(small.UNET)
    add_lora(unet, 2, torch.bfloat16)
    kinds = {weight.requires_grad: weight.dtype for weight in unet.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        loss = Diffusion(unet, empty(), Objective())(batch(2))["loss"]
    loss.backward()
    assert all(weight.grad is not None for weight in unet.parameters() if weight.requires_grad)
