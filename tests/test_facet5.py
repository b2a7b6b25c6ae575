"""FaceT5 against the recorded outputs of the published structure, and the rules of its prompt pass."""

import json
import logging

import pytest
import torch
from golden import DATA, golden_face, relative_error
from golden_t5 import CLIP, TINY_T5, golden_t5_model, tiny_t5_model
from safetensors.torch import load_file

from faceclip import InputError
from faceclip.identity.person import make_person, person_conditioning
from faceclip.model import facet5
from faceclip.model.clip_text import ClipText

log = logging.getLogger(__name__)
CASES = json.loads((DATA / "golden_t5_tiny.json").read_text())["cases"]
EXPECTED = load_file(DATA / "golden_t5_tiny.safetensors")
TEXT = "a woman in a red coat"


def run_case(model, case):
    identity = model.encode_identity(torch.stack([golden_face(seed) for seed in case["faces"]]))
    return model.encode_prompt(case["prompts"], identity, [seed is not None for seed in case["faces"]])


@pytest.fixture(scope="module")
def golden():
    return golden_t5_model("tiny")


@pytest.fixture(scope="module")
def tiny():
    return tiny_t5_model()


@pytest.fixture(scope="module")
def faces():
    return torch.stack([golden_face(1), golden_face(2), golden_face(3)])


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_published_structure(golden, name):
    joint = run_case(golden, CASES[name])
    assert joint.embeddings.shape == (len(CASES[name]["prompts"]), 512, 64)
    assert relative_error(joint.embeddings, EXPECTED[f"{name}.embeddings"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_intermediate_values_and_token_ids(golden, name):
    case = CASES[name]
    ids = torch.tensor([golden.tokens.tokenize(text)[0].ids for text in case["prompts"]])
    assert torch.equal(ids, EXPECTED[f"{name}.input_ids"].long())
    identity = golden.encode_identity(torch.stack([golden_face(seed) for seed in case["faces"]]))
    with torch.no_grad():
        text = golden.encode_text(ids)[:, :64]
        face = golden.face_patch_proj(identity.l.patch_tokens)
    assert relative_error(text, EXPECTED[f"{name}.text_hidden"]) < 1e-5
    assert relative_error(face, EXPECTED[f"{name}.face_patch_projected"]) < 1e-5


@pytest.mark.full_size
def test_the_published_widths_equal_the_published_structure():
    """1.71 B parameters in float32, 7.9 GB; with `-o log_cli=true -o log_level=INFO` it says how near."""
    case = json.loads((DATA / "golden_t5_wide.json").read_text())["cases"]["face"]
    expected = load_file(DATA / "golden_t5_wide.safetensors")
    joint = run_case(golden_t5_model("wide"), case)
    assert joint.embeddings.shape == (1, 512, 4096)
    error = relative_error(joint.embeddings[:, ::16], expected["face.embeddings"])
    log.info("relative error of the real widths: %.1e", error)
    assert error < 1e-5


@pytest.mark.parametrize(
    ("weights", "compute"), [(torch.bfloat16, torch.float32), (None, torch.bfloat16), (torch.bfloat16, torch.bfloat16)]
)
def test_bf16_stays_near(monkeypatch, weights, compute):
    """Weights kept in bf16, arithmetic in bf16 (a GPU's), and both."""
    monkeypatch.setattr(facet5, "arithmetic", lambda device: compute)
    model = golden_t5_model("tiny", weights)
    for name, case in CASES.items():
        joint = run_case(model, case)
        assert joint.embeddings.dtype == torch.float32
        assert relative_error(joint.embeddings, EXPECTED[f"{name}.embeddings"]) < 0.06


def test_arithmetic_is_float32_on_a_cpu_and_bf16_on_other_devices():
    assert facet5.arithmetic(torch.device("cpu")) == torch.float32
    assert facet5.arithmetic(torch.device("mps")) == torch.bfloat16


# The one row of a prompt, and the faces of a batch.


def test_faces_of_a_published_batch_see_one_another_and_references_of_a_person_do_not(tiny, faces):
    """The golden case `batch` is such a batch; several references are several lone prompts."""
    identity = tiny.encode_identity(faces)
    single = torch.cat([tiny.encode_prompt([TEXT], tiny.encode_identity(face[None])).embeddings for face in faces])
    together = tiny.encode_prompt([TEXT] * 3, identity).embeddings
    alone = tiny.encode_prompt([TEXT] * 3, identity, alone=True).embeddings
    assert relative_error(together, single) > 0.01
    assert relative_error(alone, single) < 1e-6


def test_several_references_are_averaged_as_lone_ones(tiny, faces):
    person, _ = make_person(tiny.encode_identity(faces), list(faces), [1, 2, 1], outliers="keep")
    single = [tiny.encode_prompt([TEXT], tiny.encode_identity(face[None])) for face in faces]
    joint = person_conditioning(tiny, TEXT, person)
    mean = sum(share * one.embeddings for share, one in zip((0.25, 0.5, 0.25), single, strict=True))
    assert relative_error(joint.embeddings, mean) < 1e-6
    assert relative_error(joint.pooled, single[0].pooled) < 1e-6
    assert tiny.widths == (joint.embeddings.shape[-1], joint.pooled.shape[-1])


def test_strength_is_the_line_from_the_zero_picture_to_the_face(tiny, faces):
    person, _ = make_person(tiny.encode_identity(faces[:1]), [faces[0]])
    plain = tiny.encode_prompt([TEXT])
    full = tiny.encode_prompt([TEXT], tiny.encode_identity(faces[:1]))
    assert torch.equal(person_conditioning(tiny, TEXT, person, 1.0).embeddings, full.embeddings)
    assert torch.equal(person_conditioning(tiny, TEXT, person, 0.0).embeddings, plain.embeddings)
    half = person_conditioning(tiny, TEXT, person, 0.5)
    assert relative_error(half.embeddings, (plain.embeddings + full.embeddings) / 2) < 1e-6
    assert relative_error(full.embeddings, plain.embeddings) > 0.01


def test_a_weight_moves_a_word_away_from_the_empty_prompt(tiny, faces):
    identity = tiny.encode_identity(faces[:1])
    plain = tiny.encode_prompt([TEXT], identity)
    for neutral in ("a woman in a (red:1.0) coat", "(a woman in a red coat:1)"):
        joint = tiny.encode_prompt([neutral], identity, weighted=True)
        assert torch.equal(joint.embeddings, plain.embeddings) and torch.equal(joint.pooled, plain.pooled)
    empty = tiny.encode_prompt([""], identity)
    row = tiny.tokens.tokenize("a woman in a (red:1.5) coat", weighted=True)[0]
    heavy = tiny.encode_prompt(["a woman in a (red:1.5) coat"], identity, weighted=True)
    for place, weight in enumerate(row.weights):
        wanted = empty.embeddings[0, place] + weight * (plain.embeddings[0, place] - empty.embeddings[0, place])
        assert relative_error(heavy.embeddings[0, place], wanted) < 1e-5
    assert sorted({*row.weights}) == [1.0, 1.5]
    assert torch.equal(heavy.pooled, plain.pooled)  # CLIP-L sees the words without brackets and weights


def test_a_long_prompt_is_cut_or_refused(tiny):
    long = "word " * 600
    cut = tiny.encode_prompt([long])
    assert torch.equal(cut.embeddings, tiny.encode_prompt(["word " * 511]).embeddings)
    with pytest.raises(InputError, match="601 tokens.*512.*Shorten"):
        tiny.encode_prompt([long], long_prompt="continue")
    short = tiny.encode_prompt([TEXT], long_prompt="continue")
    assert torch.equal(short.embeddings, tiny.encode_prompt([TEXT]).embeddings)


def test_equal_texts_go_through_the_tower_once_and_the_zero_picture_too(tiny, faces):
    identity = tiny.encode_identity(faces)
    seen, pictures = [], []
    handles = [
        tiny.t5_encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0]))),
        tiny.face_encoder.register_forward_hook(lambda *_: pictures.append(1)),
    ]
    tiny._zero = None
    tiny.encode_prompt([TEXT] * 3, identity)
    tiny.encode_prompt([TEXT, "another", TEXT])
    tiny.encode_prompt(["a third"])
    for handle in handles:
        handle.remove()
    assert seen == [1, 2, 1] and len(pictures) == 1


def test_the_dead_last_face_layer_is_not_run(tiny, faces):
    layer = tiny.fuser.encoder.layers[-1]
    handle = layer.register_forward_hook(lambda *_: pytest.fail("the last face layer was run"))
    tiny.encode_prompt([TEXT], tiny.encode_identity(faces[:1]))
    handle.remove()


# CLIP-L


def test_pooled_is_what_transformers_clip_gives(tiny):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        hidden_size=CLIP.width, intermediate_size=4 * CLIP.width, num_attention_heads=CLIP.heads,
        num_hidden_layers=CLIP.layers, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    reference = transformers.CLIPTextModel(config).eval()
    weights = {key: value for key, value in reference.state_dict().items() if not key.endswith("position_ids")}
    ours = ClipText(CLIP, torch.nn)
    ours.load_state_dict(
        {key if key.startswith("text_model.") else f"text_model.{key}": weights[key] for key in weights}
    )
    ids = torch.tensor([tiny.tokens.tokenize(text)[0].clip_ids for text in (TEXT, "", "word " * 200)])
    with torch.no_grad():
        assert relative_error(ours(ids, torch.float32), reference(ids).pooler_output) < 1e-5


def test_without_clip_there_is_no_pooled_vector_and_the_rest_works(golden, tiny, faces):
    person, _ = make_person(golden.encode_identity(faces[:2]), list(faces[:2]), outliers="keep")
    for strength in (0.0, 0.5, 1.0):
        joint = person_conditioning(golden, TEXT, person, strength)
        assert joint.pooled is None and joint.embeddings.shape == (1, 512, TINY_T5.t5.d_model)
    assert tiny.encode_prompt([TEXT]).pooled.shape == (1, CLIP.width)
