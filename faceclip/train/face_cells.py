"""Which cells of a latent show a face, for a loss that counts them more."""

import numpy as np
import torch

from ..faces.align import CROP_SIZE, face_matrix, transform
from ..sampling.schedule import LATENT_SCALE


def face_cells(landmarks, size: tuple[int, int]) -> torch.Tensor:
    """1 for each cell of a latent whose centre lies in the aligned crop of a face, else 0: float32 [1, h, w].

    landmarks: [5, 2], px of the training picture, in or beyond it. size: width and height of that picture, in px.
    """
    width, height = (side // LATENT_SCALE for side in size)
    row, column = np.mgrid[:height, :width]
    centres = (np.stack([column, row], axis=-1).reshape(-1, 2) + 0.5) * LATENT_SCALE - 0.5
    seen = transform(face_matrix(landmarks), centres)
    inside = ((seen > -0.5) & (seen < CROP_SIZE - 0.5)).all(axis=1)
    return torch.from_numpy(inside.reshape(1, height, width).astype(np.float32))
