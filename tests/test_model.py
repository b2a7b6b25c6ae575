"""The encoder against the recorded outputs of the published structure, and the rules of its two passes."""

import json

import pytest
import torch
from golden import DATA, golden_face, golden_model, relative_error
from safetensors.torch import load_file

from faceclip import InputError
from faceclip.model import prompt

CASES = json.loads((DATA / "golden_tiny.json").read_text())["cases"]
EXPECTED = load_file(DATA / "golden_tiny.safetensors")
FULL_CASES = json.loads((DATA / "golden_full.json").read_text())["cases"]


def run_case(model, case):
    faces = torch.stack([golden_face(seed) for seed in case["faces"]])
    identity = model.encode_identity(faces) if any(case["exist"]) else None
    return model.encode_prompt(case["prompts"], identity, case["exist"])


@pytest.fixture(scope="module")
def tiny():
    return golden_model("tiny")


@pytest.mark.parametrize("name", CASES)
def test_tiny_outputs_equal_the_published_structure(tiny, name):
    joint = run_case(tiny, CASES[name])
    assert relative_error(joint.embeddings, EXPECTED[f"{name}.embeddings"]) < 1e-5
    assert relative_error(joint.pooled, EXPECTED[f"{name}.pooled"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_tiny_intermediate_values(tiny, name):
    case = CASES[name]
    identity = tiny.encode_identity(torch.stack([golden_face(seed) for seed in case["faces"]]))
    for branch, features in (("l", identity.l), ("g", identity.g)):
        assert relative_error(features.class_token, EXPECTED[f"{name}.{branch}.face_class"]) < 1e-5
        assert relative_error(features.patch_tokens, EXPECTED[f"{name}.{branch}.face_patch"]) < 1e-5
        module = getattr(tiny, f"face_clip_{branch}")
        with torch.no_grad():
            text = module.encode_text(
                EXPECTED[f"{name}.input_ids"].long(), features.identity_embedding, torch.tensor(case["exist"])
            )
        assert relative_error(text, EXPECTED[f"{name}.{branch}.text_hidden"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_token_ids_are_the_published_ones(name):
    case = CASES[name]
    rows = [prompt.tokenize(text, face)[0].ids for text, face in zip(case["prompts"], case["exist"], strict=True)]
    assert torch.equal(torch.tensor(rows), EXPECTED[f"{name}.input_ids"].long())


def test_bf16_weights_stay_near(tiny):
    model = golden_model("tiny", dtype=torch.bfloat16)
    assert next(model.parameters()).dtype == torch.bfloat16
    for name, case in CASES.items():
        joint = run_case(model, case)
        assert joint.embeddings.dtype == torch.float32
        assert relative_error(joint.embeddings, EXPECTED[f"{name}.embeddings"]) < 2e-2
        assert relative_error(joint.pooled, EXPECTED[f"{name}.pooled"]) < 2e-2


def test_full_size_outputs_equal_the_published_structure():
    """In float32, then with the same weights in bfloat16: making them takes longest."""
    expected = load_file(DATA / "golden_full.safetensors")
    model = golden_model("full")
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        model.to(dtype)
        for name, case in FULL_CASES.items():
            joint = run_case(model, case)
            assert relative_error(joint.embeddings, expected[f"{name}.embeddings"]) < bound
            assert relative_error(joint.pooled, expected[f"{name}.pooled"]) < bound


def test_a_batch_equals_its_rows_one_by_one(tiny):
    case = CASES["batch"]
    together = run_case(tiny, case)
    for i in range(3):
        alone = run_case(tiny, {key: case[key][i : i + 1] for key in ("prompts", "faces", "exist")})
        assert relative_error(together.embeddings[i], alone.embeddings[0]) < 1e-6
        assert relative_error(together.pooled[i], alone.pooled[0]) < 1e-6


def test_more_faces_than_one_pass_equal_single_faces(tiny):
    faces = torch.stack([golden_face(seed) for seed in range(10)])
    seen = []
    identity = tiny.encode_identity(faces, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 10) and seen[-1] == (10, 10) and len(seen) == 3
    assert relative_error(identity.g.patch_tokens[9], tiny.encode_identity(faces[9:]).g.patch_tokens[0]) < 1e-6


def test_the_identity_changes_the_result_and_the_face_decides_how(tiny):
    text = ["a man in a red coat"]
    plain = tiny.encode_prompt(text).embeddings
    one, two = (tiny.encode_prompt(text, tiny.encode_identity(golden_face(s)[None])).embeddings for s in (1, 2))
    assert relative_error(one, plain) > 0.05
    assert relative_error(one, two) > 1e-3


def test_zero_picture_is_encoded_once(tiny):
    calls = []
    handle = tiny.face_encoder_of("face_clip_l").register_forward_hook(lambda *_: calls.append(1))
    tiny._zero = None
    tiny.encode_prompt(["a"])
    tiny.encode_prompt(["b"])
    handle.remove()
    assert len(calls) == 1


def test_a_new_prompt_redoes_no_face_work(tiny):
    identity = tiny.encode_identity(golden_face(1)[None])
    handles = [
        tiny.face_encoder_of(b).register_forward_hook(lambda *_: pytest.fail("face work was redone"))
        for b in ("face_clip_l", "face_clip_g")
    ]
    tiny.encode_prompt(["a"], identity)
    for handle in handles:
        handle.remove()


def test_the_dead_last_face_layer_is_not_run(tiny):
    layers = tiny.face_clip_g.fuser.encoder.layers
    handle = layers[-1].register_forward_hook(lambda *_: pytest.fail("the last face layer was run"))
    tiny.encode_prompt(["a"], tiny.encode_identity(golden_face(1)[None]))
    handle.remove()


def test_cancel_in_progress_is_let_through(tiny):
    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.encode_identity(torch.stack([golden_face(1)] * 9), progress=cancel)


# Bad input.


@pytest.mark.parametrize(
    ("faces", "seen"),
    [
        (torch.rand(3, 448, 448), "[3, 448, 448]"),
        (torch.rand(1, 448, 448, 3), "[1, 448, 448, 3]"),
        (torch.zeros(1, 3, 448, 448, dtype=torch.uint8), "uint8"),
        (torch.rand(1, 3, 1, 1), "[1, 3, 1, 1]"),
        (torch.rand(0, 3, 448, 448), "[0, 3, 448, 448]"),
        (torch.rand(1, 3, 448, 448) * 255, "values go from"),
        (torch.rand(1, 3, 448, 448) * 2 - 1, "values go from"),
        (torch.full((1, 3, 448, 448), float("nan")), "values go from"),
        ("face.png", "str"),
    ],
)
def test_faces_of_the_wrong_kind_are_refused(tiny, faces, seen):
    with pytest.raises(InputError, match="wanted") as error:
        tiny.encode_identity(faces)
    assert seen in str(error.value)


def test_numbers_of_faces_and_prompts_must_agree(tiny):
    two = tiny.encode_identity(torch.stack([golden_face(1), golden_face(2)]))
    with pytest.raises(InputError, match="2 faces and 1 prompts"):
        tiny.encode_prompt(["a"], two)
    with pytest.raises(InputError, match="2 faces and 3 prompts"):
        tiny.encode_prompt(["a", "b", "c"], two)
    with pytest.raises(InputError, match="has_face has 1 entries"):
        tiny.encode_prompt(["a", "b"], two, [True])
    with pytest.raises(InputError, match="no identity was given"):
        tiny.encode_prompt(["a"], None, [True])
    with pytest.raises(InputError, match="no prompt"):
        tiny.encode_prompt([])


def test_prompts_of_a_batch_that_need_different_rows_are_refused(tiny):
    with pytest.raises(InputError, match="1, 3 rows of 77 tokens"):
        tiny.encode_prompt(["a", "word " * 200], long_prompt="continue")
