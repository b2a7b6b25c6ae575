"""What every encoder of faces and prompts does, whatever its family: two passes, kept apart, so that a new prompt never
redoes face work.

A family says how a prompt becomes tokens (TokenRule), what its face encoders are, and what becomes of token rows and
face features (_joint). Reading faces, standing in for absent ones, prompt weights, batches and long prompts are here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from ..errors import InputError
from ..files.mapped import Source
from . import ops
from .config import FACE_GRID
from .face_encoder import FaceEncoder, FaceFeatures
from .prompt import TokenRow

FACES_AT_ONCE = 8  # faces per pass: between passes progress is told and Cancel is heard


@dataclass(frozen=True)
class Identity:
    """The face encoders' features of B faces; `l` and `g` are one object where one encoder serves all branches."""

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

    def part(self, start: int, end: int) -> "Identity":
        """Faces `start` to `end` - 1, without a copy."""
        first = FaceFeatures(self.l.class_token[start:end], self.l.patch_tokens[start:end])
        if self.l is self.g:
            return Identity(first, first)
        return Identity(first, FaceFeatures(self.g.class_token[start:end], self.g.patch_tokens[start:end]))

    def to(self, device: str | torch.device) -> "Identity":
        moved = self.l.to(device)
        return Identity(moved, moved if self.l is self.g else self.g.to(device))


@dataclass(frozen=True)
class JointConditioning:
    """What a diffusion model is conditioned on; float32, sizes of the published families.

    embeddings: FaceCLIP [B, 77 * rows, 2048], FaceT5 [B, 512, 4096]. pooled: FaceCLIP [B, 1280], FaceT5 [B, 768], and
    None where a FaceT5 file has no CLIP-L.
    """

    embeddings: torch.Tensor
    pooled: torch.Tensor | None


class Tokenize(Protocol):
    def __call__(self, prompt: str, has_face: bool, *, weighted: bool, long_prompt: str) -> Sequence[TokenRow]: ...


@dataclass(frozen=True)
class TokenRule:
    """How a family reads a prompt. length: tokens of a row. tokenize: a prompt's rows. end: the id of the end token."""

    length: int
    tokenize: Tokenize
    end: int

    def used(self, row: TokenRow) -> int:
        """How many tokens of a row hold something: start and prefix, where there are any, words and end."""
        return len(row.ids) - row.ids[::-1].index(self.end)  # the last one: a text may hold an end token too


class JointEncoder(nn.Module):
    """Face pass and prompt pass of a family.

    compute_device: where passes run; None means where the weights are. A host that keeps half of the weights
    elsewhere sets it.
    """

    tokens: ClassVar[TokenRule]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.compute_device: torch.device | None = None
        self.source: Source | None = None  # the file that the weights are read from while they are used
        self._zero: Identity | None = None

    @property
    def pass_device(self) -> torch.device:
        """Where passes run. Not called `device`: ComfyUI sets that name on every model it manages."""
        return self.compute_device or next(self.parameters()).device

    @property
    def face_encoders(self) -> tuple[FaceEncoder, ...]:
        """The face encoder of each branch; one alone where it serves all."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, int | None]:
        """How wide the embeddings and the pooled vector of a conditioning are."""
        raise NotImplementedError

    def _joint(
        self,
        rows: Sequence[TokenRow],
        owner: list[int],
        identity: Identity | None,
        flags: list[bool],
        together: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings [R, T, W] and pooled [R, P] of R token rows.

        owner: the prompt each row belongs to. together: the first rows, which are one batch where a family's rows see
        one another; each of the others stands alone.
        """
        raise NotImplementedError

    def _check_features(self, identity: Identity | None) -> None:
        """Raise InputError where an identity's features are not of this encoder's sizes."""
        face = self.config.face
        wanted = [[face.embed_dim], [FACE_GRID**2, face.width]]
        for features in (identity.l, identity.g) if identity is not None else ():
            seen = [list(features.class_token.shape[1:]), list(features.patch_tokens.shape[1:])]
            if seen != wanted:
                raise InputError(
                    f"The identity's features have the sizes {seen}, the loaded encoder reads {wanted}. Its file is "
                    "damaged, or another encoder made it. Encode the photos again."
                )

    def check_source(self) -> None:
        """Raise CheckpointError where the weights lie in a file that was overwritten since they were loaded."""
        if self.source is not None:
            self.source.check()

    @torch.no_grad()
    def encode_identity(self, faces: torch.Tensor, progress: Callable[[int, int], None] | None = None) -> Identity:
        """The face pass.

        faces: float [B, 3, H, W], RGB, [0, 1], aligned to the ArcFace template (see faceclip.faces.align).
        progress(done, total) is called between passes of a few faces and may raise to cancel.
        Returns an Identity of B faces on the compute device. Raises InputError for anything but such pictures.
        """
        _check_faces(faces)
        self.check_source()
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
        features = [encoder(faces) for encoder in self.face_encoders]
        return Identity(features[0], features[-1])

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
        alone: bool = False,
    ) -> JointConditioning:
        """The prompt pass: one conditioning per prompt, with the identity at the same place in the batch.

        prompts: B texts. identity: B faces, or None for no face at all. has_face: B flags, False where a row of the
        identity is to be ignored. identity_free: without an identity, still use the token sequence that a face gets,
        with the `id` token's own embedding and the zero picture. weighted, long_prompt: see the family's tokenize
        (faceclip.model.prompt, faceclip.model.t5_prompt); the defaults are the published behaviour. alone: each prompt
        as if it were the only one, where a family's published batches mix their faces (FaceT5). Raises InputError where
        the numbers do not fit.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        flags = _check_batch(prompts, identity, has_face)
        rows = [
            self.tokens.tokenize(text, flag or identity_free, weighted=weighted, long_prompt=long_prompt)
            for text, flag in zip(prompts, flags, strict=True)
        ]
        return self.encode_tokens(rows, identity, has_face, identity_free=identity_free, alone=alone)

    @torch.no_grad()
    def encode_tokens(
        self,
        rows: Sequence[Sequence[TokenRow]],
        identity: Identity | None = None,
        has_face: Sequence[bool] | None = None,
        *,
        identity_free: bool = False,
        alone: bool = False,
    ) -> JointConditioning:
        """`encode_prompt` for prompts that are token rows already, made by the family's tokenize: B lists of rows.

        Where a prompt has a face, or identity_free is set, its rows are those that a face gets.
        """
        self.check_source()
        flags = _check_batch(rows, identity, has_face)
        self._check_features(identity)
        prefixed = [flag or identity_free for flag in flags]
        counts = {len(r) for r in rows}
        if len(counts) > 1:
            raise InputError(
                f"The prompts of this batch need {', '.join(map(str, sorted(counts)))} rows of {self.tokens.length} "
                'tokens, and a batch must agree. Shorten the long ones, cut all with long_prompt="cut", or encode them '
                "one by one."
            )
        embeddings, pooled = self._encode_rows(rows, identity, flags, prefixed, alone)
        batch, count = len(rows), counts.pop()
        embeddings = embeddings.reshape(batch, count * self.tokens.length, -1)
        return JointConditioning(embeddings, None if pooled is None else pooled.reshape(batch, count, -1)[:, 0])

    def _encode_rows(
        self,
        rows: Sequence[Sequence[TokenRow]],
        identity: Identity | None,
        flags: list[bool],
        prefixed: list[bool],
        alone: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """All token rows in one pass, and with weights the rows of the empty prompt they are measured against."""
        flat = [row for prompt_rows in rows for row in prompt_rows]
        owner = [i for i, prompt_rows in enumerate(rows) for _ in prompt_rows]
        weights = torch.tensor([row.weights for row in flat], device=self.pass_device)[..., None]  # [R, T, 1]
        weighted = sorted({i for i, row in zip(owner, flat, strict=True) if any(w != 1.0 for w in row.weights)})
        empty = [self.tokens.tokenize("", prefixed[i], weighted=False, long_prompt="cut")[0] for i in weighted]
        embeddings, pooled = self._joint(
            flat + empty, owner + weighted, identity, flags, together=1 if alone else len(flat)
        )
        for i, reference in zip(weighted, embeddings[len(flat) :], strict=True):
            mine = [r for r, o in enumerate(owner) if o == i]
            scaled = reference + weights[mine] * (embeddings[mine] - reference)
            embeddings[mine] = torch.where(weights[mine] == 1.0, embeddings[mine], scaled)
        return embeddings[: len(flat)], None if pooled is None else pooled[: len(flat)]

    def _faces_of_rows(
        self, branch: str, owner: list[int], identity: Identity | None, flags: list[bool]
    ) -> FaceFeatures:
        """The features of each token row's face, by its prompt; rows without a face read the zero picture.

        branch: "l" or "g".
        """
        faces = len(identity) if identity is not None else 0
        source = torch.tensor([i if flags[i] else faces for i in owner], device=self.pass_device)
        zero = None if all(flags) else self.zero_identity()  # stands behind the B faces
        known = [getattr(some, branch).to(self.pass_device) for some in (identity, zero) if some is not None]
        return FaceFeatures(
            torch.cat([part.class_token for part in known])[source],
            torch.cat([part.patch_tokens for part in known])[source],
        )

    def _token_ids(self, rows: Sequence[TokenRow]) -> torch.Tensor:
        return torch.tensor([row.ids for row in rows], dtype=torch.long, device=self.pass_device)


def face_position(encoder: FaceEncoder, like: torch.Tensor) -> torch.Tensor:
    """Where each patch of the face lies, [1, 144, F]."""
    return ops.cast_like(encoder.pos_embed, like)


def _check_faces(faces: object) -> None:
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


def _check_batch(prompts: Sequence[object], identity: Identity | None, has_face: Sequence[bool] | None) -> list[bool]:
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
