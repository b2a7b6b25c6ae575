"""Small random changes to pictures while training, so that the measuring networks also read generated ones."""

import torch
import torch.nn.functional as F


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] or float [0, 1] -> float32 [0, 1]."""
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()


def soften(pictures: torch.Tensor, blur: float = 1.0, noise: float = 0.04, light: float = 0.1) -> torch.Tensor:
    """Per picture: some blur (up to `blur` of a 5 px one), brightness and contrast, noise. float [B, 3, H, W]."""
    count, device = len(pictures), pictures.device

    def rand() -> torch.Tensor:
        return torch.rand(count, 1, 1, 1, device=device)

    smooth = F.avg_pool2d(pictures, 5, stride=1, padding=2, count_include_pad=False)
    x = torch.lerp(pictures, smooth, blur * rand() ** 2)
    x = (x - 0.5) * (1 + light * (2 * rand() - 1)) + 0.5 + light * (2 * rand() - 1)
    x = x + noise * rand() * torch.randn_like(x)
    return x.clamp(0, 1)


def move(pictures: torch.Tensor, shift: float = 0.03, scale: float = 0.05, turn: float = 0.05) -> torch.Tensor:
    """Per picture: a small shift (share of the width), scale and turn (radians). float [B, 3, H, W]."""
    count, device = len(pictures), pictures.device
    angle = turn * (2 * torch.rand(count, device=device) - 1)
    size = 1 + scale * (2 * torch.rand(count, device=device) - 1)
    c, s = size * angle.cos(), size * angle.sin()
    by = 2 * shift * (2 * torch.rand(2, count, device=device) - 1)
    theta = torch.stack([torch.stack([c, -s, by[0]], dim=-1), torch.stack([s, c, by[1]], dim=-1)], dim=1)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
