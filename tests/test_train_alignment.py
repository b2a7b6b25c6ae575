"""Stage A: what it trains and what it leaves alone, its loss on one process and on two, and public towers."""

import math
import multiprocessing
import socket

import open_clip.loss
import pytest
import small_training as small
import torch
import torch.nn.functional as F

import faceclip
from faceclip.errors import CheckpointError, InputError
from faceclip.files.state_dict import read_state_dict
from faceclip.train import towers
from faceclip.train.alignment import ENCODER_FILE, HEADS_FILE, Alignment, masked_loss
from faceclip.train.data import ArrayData
from faceclip.train.engine import Settings, train
from faceclip.train.run_file import Terms


def vision():
    return {letter: towers.VisionTower(small.random_clip(letter).visual) for letter in ("l", "g")}


def gradients(module, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module.zero_grad()
    loss = module(batch)["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}


def test_every_trained_weight_gets_a_gradient_and_towers_none():
    module = Alignment(small.new_model(), vision())
    for name, parameter in module.named_parameters():
        if "self_attn" in name and not parameter.any():  # what starts at zero keeps gradients from what lies before it
            torch.nn.init.normal_(parameter, std=0.1)
    _, grads = gradients(module, small.batch(4))
    assert not [name for name, grad in grads.items() if not grad.any()]
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    for part in ("face_encoder", "transformer", "token_embedding", "positional_embedding", "ln_final", "vision"):
        assert any(part in name for name in frozen) and not any(f".{part}." in name for name in grads), part
    for part in ("proj1", "face_patch_proj", "text_embed_proj", "fuser", "logit_scale", "logit_bias", "heads.l.text"):
        assert any(part in name for name in grads), part


def test_the_loss_is_the_sigmoid_loss_of_the_three_terms():
    model = small.new_model()
    towers_seen = vision()
    module, batch = Alignment(model, towers_seen, Terms(1.0, 0.5, 2.0), ("l",)), small.batch(5)
    losses = module(batch)
    branch = model.face_clip_l
    assert math.isclose(branch.logit_scale.exp().item(), 1 / 0.07, rel_tol=1e-5) and branch.logit_bias.item() == -10
    identity = model.encode_identity(batch["face"])
    text, face = module.joint("l", batch["joint_ids"], identity.l)
    clip = small.random_clip("l")
    targets = {
        "face": (face, identity.embedding),
        "text": (text, clip.encode_text(batch["ids"], normalize=True)),
        "image": (text, F.normalize(towers_seen["l"](batch["picture"]), dim=-1)),
    }
    total = 0.0
    for term, weight in (("face", 1.0), ("text", 0.5), ("image", 2.0)):
        joint, target = targets[term]
        scores = (joint @ target.T) / 0.07 - 10
        wanted = -F.logsigmoid(torch.where(torch.eye(5, dtype=torch.bool), scores, -scores)).sum() / 5
        torch.testing.assert_close(losses[f"l_{term}"], wanted, rtol=1e-5, atol=1e-5)
        total += weight * wanted
    torch.testing.assert_close(losses["loss"], total, rtol=1e-5, atol=1e-5)


def test_the_joint_sequence_is_what_encode_prompt_gives():
    model = small.new_model()
    model.requires_grad_(False)
    module, batch = Alignment(model), small.batch(2)
    identity = model.encode_identity(batch["face"])
    fused = []
    for letter in ("l", "g"):
        module.heads[letter].register_forward_pre_hook(lambda _, inputs: fused.append(inputs[0]))
        module.joint(letter, batch["joint_ids"], getattr(identity, letter))
    prompts = [f"person number {i} in a {colour} coat" for i, colour in enumerate(("red", "blue"))]
    joint = model.encode_prompt(prompts, identity)
    torch.testing.assert_close(torch.cat(fused, dim=-1).detach(), joint.embeddings, rtol=1e-5, atol=1e-5)


def test_features_in_the_batch_give_the_loss_of_pictures():
    module, batch = Alignment(small.new_model(), vision()), small.batch(3)
    wanted = module(batch)
    face = module.model.encode_identity(batch["face"]).l
    known = {"class_token": face.class_token, "patch_tokens": face.patch_tokens, "joint_ids": batch["joint_ids"]}
    for letter in ("l", "g"):
        known[f"image_feature_{letter}"] = module.image_feature(letter, batch["picture"])
        known[f"text_feature_{letter}"] = module.text_feature(letter, batch["ids"])
    without = Alignment(module.model)
    without.heads.load_state_dict(module.heads.state_dict())
    for name, value in without(known).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-6)


def test_a_term_of_weight_zero_is_left_out():
    module = Alignment(small.new_model(), terms=Terms(image=0.0))  # and needs no vision tower
    assert set(module(small.batch(2))) == {
        *("loss", "l_face", "l_text", "g_face", "g_text"),
        *("l_scale", "l_bias", "g_scale", "g_bias"),
    }
    for terms, unread in ((Terms(face=0.0), "identity"), (Terms(text=0.0, image=0.0), "text")):
        only = Alignment(small.new_model(), vision(), terms)
        _, grads = gradients(only, small.batch(2))
        assert not any(f"heads.l.{unread}" in name for name in grads)
    with pytest.raises(InputError, match="no vision tower.*clip_l"):
        Alignment(small.new_model())(small.batch(2))


def test_gradient_checkpointing_changes_nothing():
    module, batch = Alignment(small.new_model(), vision()), small.batch(2)
    loss, grads = gradients(module, batch)
    module.enable_gradient_checkpointing()
    again, same = gradients(module, batch)
    torch.testing.assert_close(again, loss)
    for name, grad in grads.items():
        torch.testing.assert_close(same[name], grad, rtol=1e-5, atol=1e-7)


def _people_of_two(size: int) -> dict:
    """The first of each process's samples are one person, so are two of the second process's."""
    return small.batch(size) | {"person": torch.tensor([3, -1, 4, 3, 9, 9])}


def _on_one_of_two(rank: int, port: int, queue) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(3)
    module = torch.nn.parallel.DistributedDataParallel(Alignment(small.new_model(), vision(), rank=rank, world_size=2))
    batch = {name: values[3 * rank : 3 * rank + 3] for name, values in _people_of_two(6).items()}
    loss, grads = gradients(module, batch)
    dist.all_reduce(loss)
    if rank == 0:
        grads = {name.removeprefix("module."): grad.numpy() for name, grad in grads.items()}
        queue.put((loss.item() / 2, grads))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_loss_and_gradients_of_the_joined_batch():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=_on_one_of_two, args=(rank, port, queue)) for rank in range(2)]
    for process in ranks:
        process.start()
    loss, grads = queue.get()
    for process in ranks:
        process.join()
    torch.manual_seed(3)
    wanted_loss, wanted = gradients(Alignment(small.new_model(), vision()), _people_of_two(6))
    assert math.isclose(loss, wanted_loss.item(), rel_tol=1e-5)
    assert grads.keys() == wanted.keys()
    whole = torch.stack([grad.norm() for grad in wanted.values()]).norm()
    for name, grad in wanted.items():
        difference = (torch.from_numpy(grads[name]) - grad).norm()
        # A few gradients are zero but for rounding (a shift before a softmax): those count against the whole.
        assert difference < 1e-5 * max(grad.norm(), 1e-3 * whole), name


def test_one_batch_is_overfitted_and_the_export_loads(tmp_path):
    model = small.new_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    module = Alignment(model, vision())
    batch = small.batch(8)
    settings = Settings(tmp_path, steps=60, batch_size=8, learning_rate=5e-3, warmup=5, save_every=1000, log_every=10)
    first = {name: value.item() for name, value in module(batch).items()}
    result = train(module, ArrayData(batch), settings, lambda trained, folder: trained.export(folder))
    assert result.losses["loss"] < 0.3 * first["loss"], (first, result.losses)
    loaded = faceclip.load(tmp_path / ENCODER_FILE)
    for key, value in loaded.state_dict().items():
        changed = not torch.equal(value, before[key])
        assert not changed or any(part in key for part in ("proj", "fuser", "logit")), key
    assert any(not torch.equal(value, before[key]) for key, value in loaded.state_dict().items())
    state, _ = read_state_dict(tmp_path / HEADS_FILE)
    assert {tuple(value.shape) for value in state.values()} == {
        (16, 1232),
        (8, 1232),
        (32, 2464),
        (8, 2464),
        (16,),
        (8,),
        (32,),
    }


def test_public_towers_are_read_from_files(tmp_path):
    paths = small.write_towers(tmp_path)
    clips = {letter: towers.load_clip(paths[f"clip_{letter}"]) for letter in ("l", "g")}
    model = towers.new_faceclip(clips, towers.read_face_encoder(paths["face"], heads=2), small.FUSER, gamma=0.5)
    wanted = small.new_model()
    assert model.config == wanted.config
    for key, value in wanted.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_text_tower_is_open_clips():
    model, ids = small.new_model(), small.batch(3)["ids"]
    for letter in ("l", "g"):
        wanted = small.random_clip(letter).encode_text(ids, normalize=True)
        torch.testing.assert_close(Alignment(model).text_feature(letter, ids), wanted, rtol=1e-5, atol=1e-5)


def test_wrong_tower_files_are_named(tmp_path):
    paths = small.write_towers(tmp_path)
    with pytest.raises(CheckpointError, match="clip_l.safetensors is not the face recognition ViT.*feature.2.weight"):
        towers.read_face_encoder(paths["clip_l"])
    with pytest.raises(InputError, match="face.safetensors does not name its sizes.*'ViT-nothing'"):
        towers.load_clip(paths["face"], "ViT-nothing")
    with pytest.raises(CheckpointError, match="face.safetensors"):
        towers.load_clip(paths["face"], "ViT-L-14-quickgelu")
    config = small.clip_config("l") | {"embed_dim": 24}
    with pytest.raises(InputError, match="width is 16 and its embedding 24"):
        towers.text_config(config)


def test_the_loss_is_open_clips_own():
    assert isinstance(Alignment(small.new_model()).loss, open_clip.loss.SigLipLoss)


def test_equal_people_are_no_negatives_of_each_other():
    """The formula pair by pair: samples 0 and 2 are one person, 1 and 3 are not known, 4 is alone."""
    generator = torch.Generator().manual_seed(0)
    joint, target = (F.normalize(torch.randn(5, 8, generator=generator), dim=-1) for _ in range(2))
    person = torch.tensor([7, -1, 7, -1, 9])
    scale, bias = torch.tensor(9.0), torch.tensor(-3.0)
    wanted = 0.0
    for i in range(5):
        for j in range(5):
            score = float(scale * joint[i] @ target[j] + bias)
            if i == j:
                wanted += math.log1p(math.exp(-score))
            elif {i, j} != {0, 2}:
                wanted += math.log1p(math.exp(score))
    assert masked_loss(joint, target, scale, bias, person).item() == pytest.approx(wanted / 5, rel=1e-5)
    alone = masked_loss(joint, target, scale, bias, torch.arange(5))
    assert alone.item() == pytest.approx(open_clip.loss.SigLipLoss()(joint, target, scale, bias).item(), rel=1e-6)


def test_people_of_a_batch_reach_the_loss():
    module, batch = Alignment(small.new_model(), vision()), small.batch(4)
    apart = module(batch | {"person": torch.tensor([-1, -1, 3, 4])})
    same = module(batch | {"person": torch.tensor([3, 5, 3, 4])})
    torch.testing.assert_close(apart["loss"], module(batch)["loss"])
    assert all(same[f"l_{term}"] < apart[f"l_{term}"] for term in ("face", "text", "image"))


def test_the_scale_stays_under_a_hundred(tmp_path):
    module = Alignment(small.new_model(), vision(), branches=("l",))
    torch.nn.init.constant_(module.branch("l").logit_scale, 9.0)
    given = small.batch(4)
    data = ArrayData({name: values.repeat_interleave(2, 0) for name, values in given.items()})
    result = train(module, data, Settings(tmp_path, steps=2, batch_size=4, warmup=0, log_every=1))
    assert module.branch("l").logit_scale.exp().item() <= 100 + 1e-4
    assert result.losses["l_scale"] == pytest.approx(100, rel=1e-4) and "l_bias" in result.losses
