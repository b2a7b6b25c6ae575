"""Stage A: multi-modal alignment of the joint representation with face, text and image embedding spaces.

Frozen: face encoder, text towers, CLIP vision towers. Trained: the projections, the fuser and two heads per branch,
with the sigmoid loss of Zhai et al. (arXiv 2303.15343) in open_clip's implementation.
Source: "Learning Joint ID-Textual Representation for ID-Preserving Image Synthesis", arXiv 2504.14202.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from ..errors import InputError
from ..files.state_dict import State, write_safetensors
from ..model import checkpoint, prompt
from ..model.config import CONTEXT_LENGTH
from ..model.face_encoder import FaceFeatures
from ..model.faceclip import BRANCHES, Branch, FaceCLIP
from ..model.fuser import DeformableAttention, FusionLayer
from .data import floats
from .optimiser import local
from .run_file import Terms

TERMS = ("face", "text", "image")
_PROJECTIONS = ("proj1", "face_patch_proj", "face_pos_proj", "text_embed_proj", "text_pos_proj", "fuser")
_LOGITS = ("logit_scale", "logit_bias")
LARGEST_SCALE = math.log(100)  # of logits, as in open_clip
ENCODER_FILE, HEADS_FILE = "faceclip.safetensors", "alignment_heads.safetensors"


class Heads(nn.Module):
    """The two heads on a fused sequence [B, 77, W]: text head -> [B, W], identity head -> [B, embed_dim]."""

    def __init__(self, width: int, embed_dim: int):
        super().__init__()
        self.text = nn.Linear(CONTEXT_LENGTH * width, width)
        self.identity = nn.Linear(CONTEXT_LENGTH * width, embed_dim)

    def forward(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both vectors, L2-normalised."""
        flat = fused.flatten(1)
        return F.normalize(self.text(flat), dim=-1), F.normalize(self.identity(flat), dim=-1)


class Alignment(nn.Module):
    """The module of stage A: a batch in, the losses out.

    model: a FaceCLIP with float32 weights, on one device. vision: a frozen CLIP vision tower by branch letter, pictures
    float [B, 3, H, W] in [0, 1] -> [B, W] (see faceclip.train.towers); not needed where batches carry features.
    branches: "l", "g" or both. rank, world_size: of the process group, for the loss over all processes' pairs.

    A batch: ids, joint_ids int64 [B, 77] (the caption alone, and behind the identity prefix);
    face [B, 3, S, S], float in [0, 1] or uint8, or class_token [B, E] with patch_tokens [B, 144, F];
    picture [B, 3, H, W], as the face, or image_feature_l / image_feature_g [B, W]; text_feature_l / text_feature_g
    [B, W] save a pass; person int64 [B]: two samples of one person, from 0 on, are no negatives of each other.
    """

    # What accelerate shards one by one under FSDP.
    _no_split_modules = ("ResidualBlock", "FusionLayer", "TextLayer", "FaceLayer")

    def __init__(
        self,
        model: FaceCLIP,
        vision: Mapping[str, nn.Module] | None = None,
        terms: Terms | None = None,
        branches: Sequence[str] = ("l", "g"),
        rank: int = 0,
        world_size: int = 1,
    ):
        super().__init__()
        from open_clip.loss import SigLipLoss

        self.terms = terms or Terms()
        self.branches = tuple(branches)
        self.model = model.requires_grad_(False)
        embed_dim = model.config.face.embed_dim
        self.heads = nn.ModuleDict({b: Heads(getattr(model.config, b).width, embed_dim) for b in self.branches})
        for heads in self.heads.values():  # a head that no term reads would wait for its gradient for ever under DDP
            heads.text.requires_grad_(bool(self.terms.text or self.terms.image))
            heads.identity.requires_grad_(bool(self.terms.face))
        self.vision = nn.ModuleDict(dict(vision or {})).requires_grad_(False).eval()
        self.loss = SigLipLoss(rank=rank, world_size=world_size)
        for letter in self.branches:
            for name, parameter in self.branch(letter).named_parameters():
                parameter.requires_grad_(_is_trained(name, model.config.fuser.layers))

    def branch(self, letter: str) -> Branch:
        return getattr(self.model, f"face_clip_{letter}")

    def compiled(self) -> list[nn.Module]:
        """What torch.compile is for."""
        stacks = [part for b in self.branches for part in (self.branch(b).transformer, self.branch(b).fuser)]
        return [*stacks, *self.vision.values()]

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations inside the layers of text tower and fuser; the backward pass runs them again."""
        for letter in self.branches:
            encoder = self.branch(letter).fuser.encoder
            stacks = (self.branch(letter).transformer.resblocks, *encoder.children())
            for layer in (layer for stack in stacks for layer in stack.children()):
                layer.forward = functools.partial(recompute, layer.forward, use_reentrant=False)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ "loss"; for each branch and term, "l_face" and so on, before weighting; its logits' "l_scale", "l_bias"."""
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=batch["joint_ids"].device)
        features: dict[str, FaceFeatures] = {}
        for letter in self.branches:
            face = self.face(batch, letter, features)
            text, identity = self.joint(letter, batch["joint_ids"], face)
            for term in TERMS:
                weight = getattr(self.terms, term)
                if not weight:
                    continue
                joint = identity if term == "face" else text
                target = self.target(batch, letter, term, face)
                value = self._pairwise(letter, joint, target, batch.get("person"))
                losses[f"{letter}_{term}"] = value
                total = total + weight * value
        for letter in self.branches:
            losses[f"{letter}_scale"] = self.branch(letter).logit_scale.detach().exp()
            losses[f"{letter}_bias"] = self.branch(letter).logit_bias.detach()
        return {"loss": total, **losses}

    def joint(self, letter: str, joint_ids: torch.Tensor, face: FaceFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """Text head and identity head of one branch, [B, W] and [B, embed_dim], L2-normalised."""
        branch = self.branch(letter)
        everybody = torch.ones(len(joint_ids), dtype=torch.bool, device=joint_ids.device)
        hidden = branch.encode_text(joint_ids, face.identity_embedding, everybody)
        position = self.model.face_encoder_of(f"face_clip_{letter}").pos_embed.float()
        return self.heads[letter](branch.fuse(hidden, face.patch_tokens, position))

    @torch.no_grad()
    def text_feature(self, letter: str, ids: torch.Tensor) -> torch.Tensor:
        """CLIP's text feature of captions [B, 77]: projected at the end token, L2-normalised, [B, W]."""
        branch = self.branch(letter)
        hidden = branch.encode_text(ids)
        end = hidden[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return F.normalize(end @ branch.text_projection.float(), dim=-1)

    @torch.no_grad()
    def image_feature(self, letter: str, pictures: torch.Tensor) -> torch.Tensor:
        """CLIP's image feature, L2-normalised, [B, W]."""
        if letter not in self.vision:
            raise InputError(
                f"The batch holds pictures, but the {letter} branch has no vision tower. Name one in the run's [model] "
                f"table (clip_{letter}), or give batches with image_feature_{letter}."
            )
        return F.normalize(self.vision[letter](pictures).float(), dim=-1)

    @torch.no_grad()
    def features(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the frozen models make of a batch; a batch of these is trained on without them. InputError where the two
        branches have face encoders of their own, which a batch has no place for."""
        if not self.model.shared_face_encoder:
            raise InputError("A cache holds one face encoder's features, but this FaceCLIP has two.")
        face = self.face(batch, self.branches[0])
        found = {"class_token": face.class_token, "patch_tokens": face.patch_tokens.half()}
        for letter in self.branches:
            for term in ("text", "image"):
                if getattr(self.terms, term):
                    found[f"{term}_feature_{letter}"] = self.target(batch, letter, term, face)
        return found | {name: batch[name] for name in ("joint_ids", "person") if name in batch}

    @torch.no_grad()
    def face(
        self, batch: Mapping[str, torch.Tensor], letter: str, known: dict[str, FaceFeatures] | None = None
    ) -> FaceFeatures:
        """The face encoder's features of a batch. known: what was found for this batch, to be filled."""
        if "patch_tokens" in batch:
            return FaceFeatures(batch["class_token"].float(), batch["patch_tokens"].float())
        known = {} if known is None else known
        key = "shared" if self.model.shared_face_encoder else letter
        if key not in known:
            known[key] = self.model.face_encoder_of(f"face_clip_{letter}")(floats(batch["face"]))
        return known[key]

    def target(self, batch: Mapping[str, torch.Tensor], letter: str, term: str, face: FaceFeatures) -> torch.Tensor:
        """What a term compares the joint representation with, L2-normalised."""
        if term == "face":
            return face.identity_embedding
        if (key := f"{term}_feature_{letter}") in batch:
            return F.normalize(batch[key].float(), dim=-1)
        if term == "text":
            return self.text_feature(letter, batch["ids"])
        return self.image_feature(letter, floats(batch["picture"]))

    def _pairwise(
        self, letter: str, joint: torch.Tensor, target: torch.Tensor, person: torch.Tensor | None
    ) -> torch.Tensor:
        branch = self.branch(letter)
        scale, bias = branch.logit_scale.exp(), branch.logit_bias
        # In float32: a bf16 sum over all pairs of a large batch loses the small terms.
        with torch.autocast(joint.device.type, enabled=False):
            if person is None:
                return self.loss(joint.float(), target.float(), scale, bias)
            return masked_loss(joint.float(), target.float(), scale, bias, person)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keeps the scale of the logits from 1 to 100, as open_clip does."""
        for letter in self.branches:
            local(self.branch(letter).logit_scale).clamp_(0, LARGEST_SCALE)

    def heads_state(self) -> State:
        return {key: value.detach() for key, value in self.heads.state_dict().items()}

    def export(self, folder: Path) -> None:
        """Write faceclip.safetensors (loads everywhere a FaceCLIP does) and alignment_heads.safetensors."""
        checkpoint.save(self.model, Path(folder) / ENCODER_FILE, force=True)
        write_safetensors(self.heads_state(), Path(folder) / HEADS_FILE, {}, force=True)


def masked_loss(
    joint: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, person: torch.Tensor
) -> torch.Tensor:
    """open_clip's sigmoid loss over the pairs of all processes, without the pairs of two samples of one person.

    joint, target: [B, D] of this process, L2-normalised; target without gradients, so that gathering it is enough.
    person: int64 [B], below 0 where not known.
    """
    rank, targets, people = 0, target, person
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        rank, targets, people = dist.get_rank(), _gathered(target), _gathered(person)
    own = torch.eye(len(joint), len(targets), dtype=torch.bool, device=joint.device).roll(rank * len(joint), 1)
    logits = scale * joint @ targets.T + bias
    terms = -F.logsigmoid(torch.where(own, logits, -logits))
    same = (person[:, None] == people[None]) & (person[:, None] >= 0) & ~own
    return terms.masked_fill(same, 0).sum() / len(joint)


def _gathered(values: torch.Tensor) -> torch.Tensor:
    """Of all processes, in their order."""
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def _is_trained(name: str, layers: int) -> bool:
    """Nothing reads the face after the last fusion: what only writes it gets no gradient and stays as it was."""
    last = f"{layers - 1}."
    unread = (
        "fuser.enc_output",
        f"fuser.encoder.layers.{last}",
        *(f"fuser.encoder.fusion_layers.{last}{n}" for n in ("gamma_v", "attn.out_v_proj", "attn.values_l_proj")),
        *(("face_pos_proj",) if layers == 1 else ()),
    )
    return name.split(".")[0] in (*_PROJECTIONS, *_LOGITS) and not name.startswith(unread)


def initialise(model: FaceCLIP, seed: int = 0, gamma: float = 1e-4) -> None:
    """Start values of what stage A trains; the towers keep theirs.

    Linear layers: Xavier, biases 0. gamma: how much of the other side the first fusions let in. Deformable attention
    starts as an even mean of points laid out around each cell, one direction per head (Zhu et al., arXiv 2010.04159).
    """
    generator = torch.Generator().manual_seed(seed)
    for name in BRANCHES:
        branch: Branch = getattr(model, name)
        for part in (getattr(branch, projection) for projection in _PROJECTIONS):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    bound = math.sqrt(6 / sum(module.weight.shape))
                    nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                elif isinstance(module, nn.LayerNorm):
                    nn.init.ones_(module.weight)
                    nn.init.zeros_(module.bias)
        for part in branch.fuser.encoder.modules():
            if isinstance(part, FusionLayer):
                nn.init.constant_(part.gamma_v, gamma)
                nn.init.constant_(part.gamma_l, gamma)
            elif isinstance(part, DeformableAttention):
                _look_around(part)
        nn.init.constant_(branch.logit_scale, math.log(1 / 0.07))
        nn.init.constant_(branch.logit_bias, -10.0)


def _look_around(attention: DeformableAttention) -> None:
    """Each head looks one way from its own cell, each of its points one cell further."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    angle = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    direction = direction / direction.abs().amax(dim=-1, keepdim=True)
    reach = torch.arange(1, attention.points + 1)[None, :, None]
    attention.sampling_offsets.bias.data.copy_((direction[:, None] * reach).flatten())


def token_ids(captions: Sequence[str], has_face: bool) -> torch.Tensor:
    """int64 [B, 77]: published tokens of captions, with the identity prefix where has_face is set."""
    return torch.tensor([prompt.tokenize(caption, has_face)[0].ids for caption in captions], dtype=torch.long)
