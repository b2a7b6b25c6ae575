"""FaceCLIP as CLIP in a real host: stock nodes give FaceCLIP Prompt's conditioning; what cannot work is named."""

import flux_models
import inside_clip
import pytest
from inprocess import run_in_host
from safetensors.torch import save_file
from seeded import seeded

from faceclip.small import models as small

UNET_LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
LAYERS = {
    "kohya": ("lora_te1_text_model_encoder_layers_3_self_attn_q_proj", "lora_down.weight", "lora_up.weight"),
    "diffusers": ("text_encoder_2.text_model.encoder.layers.3.mlp.fc1", "lora_A.weight", "lora_B.weight"),
}


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory) -> dict:
    """What was seen in a host with the small models, a small FaceT5, and LoRAs with and without text encoders."""
    base = tmp_path_factory.mktemp("clip")
    small.write_small_model(base / "models")
    flux_models.write_family(base / "models")
    width = small.UNET.block_out_channels[-1]
    layer = {f"{UNET_LAYER}.lora_down.weight": (2, width), f"{UNET_LAYER}.lora_up.weight": (width, 2)}
    texts = {kind: {f"{name}.{down}": (2, 768), f"{name}.{up}": (768, 2)} for kind, (name, down, up) in LAYERS.items()}
    kinds = {"unet alone": {}, **texts}
    for kind, more in kinds.items():
        save_file(seeded({**layer, **more}), base / "models" / "loras" / f"{kind}.safetensors")
    names = {kind: f"{kind}.safetensors" for kind in kinds}
    files = (small.ENCODER_FILE, small.UNET_FILE, flux_models.FILES["FaceCLIPLoader"][1])
    return run_in_host(inside_clip.everything, *files, names, comfyui=comfyui, base=base)


def test_stock_nodes_give_what_faceclip_prompt_gives(found):
    equal = found["equal"]
    assert len(equal) == 3 * 4 * 3 and all(equal.values()), [case for case, same in equal.items() if not same]


def test_every_form_in_which_a_clip_is_asked(found):
    seen = dict(found["forms"])
    assert "does not begin with 'Photo of a id person.'" in seen.pop("tokens without the identity's place")
    assert "wanted rows of 77 for 'g'" in seen.pop("tokens of another model")
    assert seen.pop("word ids") == [7, 8, 0, 0]
    assert seen.pop("hooks of a clone") == "hooks"
    assert seen.pop("two chunks by hand")[:2] == [1, 154]
    assert all(seen.values()), seen


def test_loras_for_the_unet_work_and_those_for_text_encoders_are_named(found):
    seen = found["loras"]
    assert seen["unet alone"] == seen["kohya at strength_clip 0"] == 1 and seen["its CLIP"]
    for kind, weight in (("kohya", "clip_l.transformer"), ("diffusers", "clip_g.transformer")):
        assert "Set the loader's strength_clip to 0" in seen[kind] and weight in seen[kind]
    assert seen["hooks"] and seen["hooks at strength_clip 0"] == "nothing"
    assert "1 weights of a text encoder" in seen["hooks with a text encoder"]
    assert seen["scheduled"] == [0.0, 0.5] and seen["scheduled as plain"]


def test_what_cannot_work_is_refused_by_name(found):
    said = found["refused"]
    assert "embedding:negativeXL_D" in said["embedding"] and "Textual inversion cannot work" in said["embedding"]
    assert "asks for layer -1" in said["layer"] and said["layer of SDXL"] == "nothing"
    assert "cannot be saved" in said["save"] and said["save, newer hosts"] == said["save"]
    assert "cannot be merged" in said["merge"]
    assert "cannot be loaded into this CLIP" in said["weights"]
    assert "has no clip_g" in said["attribute"]


def test_facet5_answers_with_its_own(found):
    equal = found["facet5"]
    assert len(equal) == 7 and all(equal.values()), equal
