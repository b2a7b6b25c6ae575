"""The FaceT5 side of benchmarks/encode.py.

Speed is compared on the real widths with one of the 24 T5 blocks (1.71 B weights). Memory is measured on all of them
and CLIP-L, 6.3 B weights that are all one number, which memory does not notice.
The published order of work redoes the face, or the zero picture, for every prompt and runs the last face layer, which
nothing reads. The rounding is measured on the small golden cases, whose random weights exaggerate it.
"""

import json

import torch
from golden import DATA, golden_face, relative_error
from golden_t5 import golden_config, golden_t5_model, manifest_shapes, t5_state
from safetensors.torch import load_file

from faceclip.model import facet5
from faceclip.model.checkpoint import build, expected_shapes
from faceclip.model.config import PUBLISHED_T5
from faceclip.model.encoder import face_position
from faceclip.model.facet5 import FaceT5
from faceclip.model.families import PUBLISHED_CLIP
from faceclip.model.ops import cast_like
from faceclip.model.t5_prompt import tokenize


def published_order(model: FaceT5, prompt: str, face: torch.Tensor | None) -> torch.Tensor:
    """One prompt in the published order, batch 1."""
    picture = torch.zeros(1, 3, 448, 448, device=model.pass_device) if face is None else face
    ids = torch.tensor([tokenize(prompt)[0].ids], device=model.pass_device)
    with torch.no_grad():
        patches = model.face_encoder(picture).patch_tokens
        text = model.encode_text(ids)
        seen = model.face_patch_proj(patches.to(text.dtype))
        face_places = model.face_pos_proj(face_position(model.face_encoder, text))
        places = cast_like(model.positional_embedding, text)
        encoder = model.fuser.encoder
        for fusion, text_layer, face_layer in zip(
            encoder.fusion_layers, encoder.text_layers, encoder.layers, strict=True
        ):
            seen, text = fusion(seen, text, text_only=False)
            text = text_layer(text, places)
            seen = face_layer(seen, face_places)
    return text.float()


def wide_state() -> dict[str, torch.Tensor]:
    return t5_state(manifest_shapes("wide"))


def published_size_state() -> dict[str, torch.Tensor]:
    """Weights of the published sizes that take no memory themselves."""
    state = {}
    for key, shape in expected_shapes(PUBLISHED_T5, PUBLISHED_CLIP).items():
        kind = torch.long if key.endswith("num_batches_tracked") else torch.bfloat16
        state[key] = torch.full((), 0.01).to(kind).expand(shape)
    return state


def wide_model(state: dict[str, torch.Tensor], device: torch.device) -> FaceT5:
    model = build(state, CONFIG, "FaceT5 of the real widths", device)
    assert isinstance(model, FaceT5)
    return model


def rounding() -> None:
    """What bf16 and fp8 cost in the embeddings of the four small golden cases, against float32."""
    cases = json.loads((DATA / "golden_t5_tiny.json").read_text())["cases"]
    expected = load_file(DATA / "golden_t5_tiny.safetensors")
    kinds = {
        "float32": (None, torch.float32),
        "arithmetic in bf16": (None, torch.bfloat16),
        "weights in bf16": (torch.bfloat16, torch.float32),
        "both in bf16, as on a GPU": (torch.bfloat16, torch.bfloat16),
        "fp8_e4m3fn weights": (torch.float8_e4m3fn, torch.float32),
    }
    print(f"{'deviation from the golden embeddings':44} " + " ".join(f"{name:>10}" for name in cases))
    chosen = facet5.arithmetic
    for words, (weights, compute) in kinds.items():
        facet5.arithmetic = lambda device, compute=compute: compute
        model, errors = golden_t5_model("tiny", weights), []
        for name, case in cases.items():
            identity = model.encode_identity(torch.stack([golden_face(seed) for seed in case["faces"]]))
            joint = model.encode_prompt(case["prompts"], identity, [seed is not None for seed in case["faces"]])
            errors.append(relative_error(joint.embeddings, expected[f"{name}.embeddings"]))
        print(f"{words:44} " + " ".join(f"{error:10.1e}" for error in errors))
    facet5.arithmetic = chosen


CONFIG = golden_config("wide")
