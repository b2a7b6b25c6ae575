"""FaceCLIP: the face pass and the prompt pass, kept apart so that a new prompt never redoes face work.

All arithmetic is float32 whatever the weights are stored in: the layers cast. The published weights are bf16, so the
result is that of float32 on those weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InputError
from . import ops, prompt, tokenizer
from .config import CONTEXT_LENGTH, VOCABULARY, FaceCLIPConfig, TextConfig
from .face_encoder import FaceEncoder, FaceFeatures
from .fuser import Fuser
from .text_tower import Transformer

BRANCHES = ("face_clip_l", "face_clip_g")
FACES_AT_ONCE = 8  # faces per pass: between passes progress is told and Cancel is heard


@dataclass(frozen=True)
class Identity:
    """The face encoders' features of B faces; `l` and `g` are one object where both branches share an encoder."""

    l: FaceFeatures  # noqa: E741
    g: FaceFeatures

    def __len__(self) -> int:
        return len(self.l.class_token)

    @property
    def embedding(self) -> torch.Tensor:
        """The L2-normalised identity embedding of the l branch's encoder, float32 [B, 512]."""
        return self.l.identity_embedding

    @classmethod
    def cat(cls, parts: Sequence["Identity"]) -> "Identity":
        """All faces of `parts`, in order."""
        first = FaceFeatures.cat([part.l for part in parts])
        shared = all(part.l is part.g for part in parts)
        return cls(first, first if shared else FaceFeatures.cat([part.g for part in parts]))

    def to(self, device) -> "Identity":
        moved = self.l.to(device)
        return Identity(moved, moved if self.l is self.g else self.g.to(device))


@dataclass(frozen=True)
class JointConditioning:
    """embeddings: float32 [B, 77 * rows, width l + width g]. pooled: float32 [B, width g]."""

    embeddings: torch.Tensor
    pooled: torch.Tensor


class Branch(nn.Module):
    """One text tower with its fuser (face_clip_l or face_clip_g).

    `text_projection`, `logit_scale` and `logit_bias` serve training and scoring only.
    """

    def __init__(self, config: FaceCLIPConfig, text: TextConfig, operations, device, dtype):
        super().__init__()
        width, face_width = text.width, config.face.width
        bare = {"device": device, "dtype": dtype}
        self.positional_embedding = nn.Parameter(torch.zeros(CONTEXT_LENGTH, width, **bare))
        self.text_projection = nn.Parameter(torch.zeros(width, width, **bare))
        self.logit_scale = nn.Parameter(torch.zeros((), **bare))
        self.logit_bias = nn.Parameter(torch.zeros((), **bare))
        self.transformer = Transformer(text, operations, device, dtype)
        self.token_embedding = operations.Embedding(VOCABULARY, width, **bare)
        self.ln_final = operations.LayerNorm(width, **bare)
        self.proj1 = operations.Linear(config.face.embed_dim, width, **bare)
        self.face_patch_proj = operations.Linear(face_width, width, **bare)
        self.face_pos_proj = operations.Linear(face_width, width, **bare)
        self.text_embed_proj = operations.Linear(width, width, **bare)
        self.text_pos_proj = operations.Linear(width, width, **bare)
        self.fuser = Fuser(width, config.fuser, operations, device, dtype)

    def encode_text(self, ids: torch.Tensor, identity_embedding=None, with_identity=None) -> torch.Tensor:
        """Hidden states after `ln_final`, float32 [R, 77, W].

        ids: int64 [R, 77]. identity_embedding: float32 [R, embed_dim], put in place of the prefix's token `id` in the
        rows where with_identity (bool [R]) is set.
        """
        x = self.token_embedding(ids).float()
        if with_identity is not None and with_identity.any():
            position = 1 + tokenizer.identity_offset()
            replaced = torch.where(with_identity[:, None], self.proj1(identity_embedding), x[:, position])
            x = torch.cat([x[:, :position], replaced[:, None], x[:, position + 1 :]], dim=1)
        x = x + ops.cast_like(self.positional_embedding, x)
        return self.ln_final(self.transformer(x))

    def fuse(self, text: torch.Tensor, patch_tokens: torch.Tensor, face_position: torch.Tensor) -> torch.Tensor:
        """Fused text [R, 77, W]. text: [R, 77, W]; patch_tokens: [R, 144, F]; face_position: [1, 144, F]."""
        return self.fuser(
            self.text_embed_proj(text),
            self.text_pos_proj(ops.cast_like(self.positional_embedding, text)),
            self.face_patch_proj(patch_tokens),
            self.face_pos_proj(face_position),
        )


class FaceCLIP(nn.Module):
    """Both branches and their face encoder(s).

    shared_face_encoder: one encoder serves both branches, allowed only where the two copies are equal.
    compute_device: where passes run; None means where the weights are. A host that keeps half of the weights
    elsewhere sets it.
    """

    def __init__(self, config: FaceCLIPConfig, shared_face_encoder=True, operations=ops, device=None, dtype=None):
        super().__init__()
        self.config = config
        self.shared_face_encoder = shared_face_encoder
        self.compute_device: torch.device | None = None
        self._zero: Identity | None = None
        self.face_clip_l = Branch(config, config.l, operations, device, dtype)
        self.face_clip_g = Branch(config, config.g, operations, device, dtype)
        if shared_face_encoder:
            self.face_encoder = FaceEncoder(config.face, operations, device, dtype)
        else:
            for branch in (self.face_clip_l, self.face_clip_g):
                branch.face_encoder = FaceEncoder(config.face, operations, device, dtype)

    @property
    def pass_device(self) -> torch.device:
        """Where passes run. Not called `device`: hosts keep their own note under that name."""
        return self.compute_device or next(self.parameters()).device

    def face_encoder_of(self, branch: str) -> FaceEncoder:
        """The face encoder that serves a branch ("face_clip_l" or "face_clip_g")."""
        return self.face_encoder if self.shared_face_encoder else getattr(self, branch).face_encoder

    @torch.no_grad()
    def encode_identity(self, faces: torch.Tensor, progress: Callable[[int, int], None] | None = None) -> Identity:
        """The face pass.

        faces: float [B, 3, H, W], RGB, [0, 1], aligned to the ArcFace template (see faceclip.faces.align).
        progress(done, total) is called between passes of a few faces and may raise to cancel.
        Returns an Identity of B faces on the compute device. Raises InputError for anything but such pictures.
        """
        _check_faces(faces)
        parts = []
        for start in range(0, len(faces), FACES_AT_ONCE):
            if progress:
                progress(start, len(faces))
            parts.append(self._face_pass(faces[start : start + FACES_AT_ONCE]))
        if progress:
            progress(len(faces), len(faces))
        return parts[0] if len(parts) == 1 else Identity.cat(parts)

    def _face_pass(self, faces: torch.Tensor) -> Identity:
        faces = faces.to(device=self.pass_device, dtype=torch.float32)
        first = self.face_encoder_of("face_clip_l")(faces)
        return Identity(first, first if self.shared_face_encoder else self.face_encoder_of("face_clip_g")(faces))

    @torch.no_grad()
    def zero_identity(self) -> Identity:
        """Features of one all-zero picture, which stand in where no face is given. Computed once."""
        if self._zero is None:
            self._zero = self._face_pass(torch.zeros(1, 3, 112, 112)).to("cpu")
        return self._zero.to(self.pass_device)

    @torch.no_grad()
    def encode_prompt(
        self,
        prompts: Sequence[str],
        identity: Identity | None = None,
        has_face: Sequence[bool] | None = None,
        *,
        identity_free: bool = False,
        weighted: bool = False,
        long_prompt: str = "cut",
    ) -> JointConditioning:
        """The prompt pass: one conditioning per prompt, with the identity at the same place in the batch.

        prompts: B texts. identity: B faces, or None for no face at all. has_face: B flags, False where a row of the
        identity is to be ignored. identity_free: without an identity, still use the token sequence that a face gets,
        with the `id` token's own embedding and the zero picture. weighted, long_prompt: see
        faceclip.model.prompt.tokenize;
        the defaults are the published behaviour. Raises InputError where the numbers do not fit.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        flags = _check_batch(prompts, identity, has_face)
        prefixed = [flag or identity_free for flag in flags]
        rows = [
            prompt.tokenize(text, prefix, weighted=weighted, long_prompt=long_prompt)
            for text, prefix in zip(prompts, prefixed, strict=True)
        ]
        counts = {len(r) for r in rows}
        if len(counts) > 1:
            raise InputError(
                f"The prompts of this batch need {', '.join(map(str, sorted(counts)))} rows of 77 tokens, and a batch "
                'must agree. Shorten the long ones, cut all with long_prompt="cut", or encode them one by one.'
            )
        embeddings, pooled = self._encode_rows(rows, identity, flags, prefixed)
        batch, count = len(rows), counts.pop()
        embeddings = embeddings.reshape(batch, count * CONTEXT_LENGTH, -1)
        return JointConditioning(embeddings, pooled.reshape(batch, count, -1)[:, 0])

    def _encode_rows(self, rows: list[list[prompt.TokenRow]], identity: Identity | None, flags, prefixed):
        """All token rows in one pass, and with weights the rows of the empty prompt they are measured against."""
        flat = [row for prompt_rows in rows for row in prompt_rows]
        owner = [i for i, prompt_rows in enumerate(rows) for _ in prompt_rows]
        weights = torch.tensor([row.weights for row in flat], device=self.pass_device)[..., None]  # [R, 77, 1]
        weighted = sorted({i for i, row in zip(owner, flat, strict=True) if any(w != 1.0 for w in row.weights)})
        empty = [prompt.tokenize("", prefixed[i])[0] for i in weighted]
        embeddings, pooled = self._joint(flat + empty, owner + weighted, identity, flags)
        for i, reference in zip(weighted, embeddings[len(flat) :], strict=True):
            mine = [r for r, o in enumerate(owner) if o == i]
            scaled = reference + weights[mine] * (embeddings[mine] - reference)
            embeddings[mine] = torch.where(weights[mine] == 1.0, embeddings[mine], scaled)
        return embeddings[: len(flat)], pooled[: len(flat)]

    def _joint(self, rows: list[prompt.TokenRow], owner: list[int], identity: Identity | None, flags: list[bool]):
        ids = torch.tensor([row.ids for row in rows], dtype=torch.long, device=self.pass_device)
        with_identity = torch.tensor([flags[i] for i in owner], device=self.pass_device)
        # Rows without a face read the zero picture, which stands behind the B faces.
        faces = len(identity) if identity is not None else 0
        source = torch.tensor([i if flags[i] else faces for i in owner], device=self.pass_device)
        zero = None if all(flags) else self.zero_identity()
        fused = []
        for name, features in (("face_clip_l", "l"), ("face_clip_g", "g")):
            known = [getattr(i, features).to(self.pass_device) for i in (identity, zero) if i is not None]
            class_token = torch.cat([f.class_token for f in known])[source]
            patches = torch.cat([f.patch_tokens for f in known])[source]
            branch = getattr(self, name)
            vector = FaceFeatures(class_token, patches).identity_embedding
            text = branch.encode_text(ids, vector, with_identity)
            fused.append(branch.fuse(text, patches, self._face_position(name, text)))
        end = ids.argmax(dim=-1)  # the end token has the highest id
        return torch.cat(fused, dim=-1), text[torch.arange(len(rows), device=self.pass_device), end]

    def _face_position(self, branch: str, like: torch.Tensor) -> torch.Tensor:
        return ops.cast_like(self.face_encoder_of(branch).pos_embed, like)


def _check_faces(faces: torch.Tensor) -> None:
    if not isinstance(faces, torch.Tensor) or faces.ndim != 4 or faces.shape[1] != 3 or not faces.is_floating_point():
        seen = f"{faces.dtype} {list(faces.shape)}" if isinstance(faces, torch.Tensor) else type(faces).__name__
        raise InputError(f"The faces are {seen}, wanted float [B, 3, H, W], RGB with values from 0 to 1.")
    if 0 in faces.shape or min(faces.shape[2:]) < 16:
        raise InputError(f"The faces are {list(faces.shape)}, wanted at least one, of 16 x 16 px or more (448 x 448).")
    low, high = float(faces.min()), float(faces.max())
    if not (-1e-3 <= low and high <= 1 + 1e-3):  # also refuses NaN
        raise InputError(
            f"The faces' values go from {low:g} to {high:g}, wanted 0 to 1 with no mean or deviation taken off."
        )


def _check_batch(prompts: list[str], identity: Identity | None, has_face: Sequence[bool] | None) -> list[bool]:
    if not prompts:
        raise InputError("There is no prompt. Give at least one; an empty text is allowed.")
    if identity is None:
        if has_face is not None and any(has_face):
            raise InputError("has_face marks a face, but no identity was given. Pass identity=...")
        return [False] * len(prompts)
    if len(identity) != len(prompts):
        raise InputError(
            f"There are {len(identity)} faces and {len(prompts)} prompts. Each prompt takes one face: give as many of "
            "one as of the other, or encode them one at a time."
        )
    flags = [True] * len(prompts) if has_face is None else [bool(flag) for flag in has_face]
    if len(flags) != len(prompts):
        raise InputError(f"has_face has {len(flags)} entries for {len(prompts)} prompts, wanted one each.")
    return flags
