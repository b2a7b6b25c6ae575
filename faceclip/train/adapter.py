"""LoRA on stage B's UNet, by peft: low-rank matrices beside the attention's, in a file that loads in any host.

Source: Hu et al., arXiv 2106.09685.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import DependencyError
from ..files.state_dict import write_safetensors
from ..install import extras

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

LORA_FILE = "unet_lora.safetensors"
_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_lora(unet: "UNet2DConditionModel", rank: int, frozen: torch.dtype = torch.float32) -> None:
    """Freeze the UNet and put trainable matrices of this rank beside its attention's, which change nothing yet.

    frozen: what its own weights are kept in; bf16 is half as large. DependencyError without peft.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise DependencyError(
            f'A LoRA needs peft ({error}), which the extra "train" brings: {extras.install_line("train")}'
        ) from error
    for weight in unet.requires_grad_(False).parameters():
        weight.data = weight.data.to(frozen)
    # alpha = rank: what is trained is added as it is, whatever the rank.
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS, init_lora_weights="gaussian"))
    for weight in unet.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def has_lora(unet: torch.nn.Module) -> bool:
    return bool(getattr(unet, "peft_config", None))


def save_lora(unet: "UNet2DConditionModel", folder: Path) -> None:
    """Write unet_lora.safetensors under kohya's names, which ComfyUI's and other programs' stock loaders read."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
    from peft import get_peft_model_state_dict

    state = {f"unet.{name}": value.detach().cpu() for name, value in get_peft_model_state_dict(unet).items()}
    kohya = {name: value.float().contiguous() for name, value in convert_state_dict_to_kohya(state).items()}
    rank = next(len(value) for name, value in kohya.items() if name.endswith("lora_down.weight"))
    about = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
    write_safetensors(kohya, folder / LORA_FILE, about, force=True)
