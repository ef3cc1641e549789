"""Saliency maps: how strongly each pixel of a picture pulls at the network's answer, by captum.

The absolute gradient of the winning class (Simonyan et al., arXiv 1312.6034), averaged over 5 x 5 pixels, since single
pixels of a gradient flicker; scaled to 0..255 per picture and enlarged as maps are kept for showing. (Issue 3: the demo
grows.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuralartifactdb.errors import ExtraMissingError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["ENLARGED", "SIDE", "import_captum", "saliency_maps"]

ENLARGED = 4
"""Pixels of a map along each pixel of a picture."""
SIDE = 32 * ENLARGED
"""Of a map."""
_SMOOTH = 5
_BATCH = 250


def saliency_maps(network: torch.nn.Module, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where a network looks for the class that it finds most probable.

    Args:
        network: in eval mode, on the CPU; left as it was.
        images: (n, 1, 32, 32).

    Returns:
        uint8 (n, 128, 128): 255 where the answer depends most on the pixels around.

    Raises:
        ExtraMissingError: captum is not installed.
    """
    attribution = import_captum()
    import torch

    method = attribution.Saliency(network)
    maps = np.empty((len(images), SIDE, SIDE), dtype=np.uint8)
    for first in range(0, len(images), _BATCH):
        pictures = torch.from_numpy(images[first : first + _BATCH])
        with torch.no_grad():
            classes = network(pictures).argmax(dim=1)
        slopes = method.attribute(pictures.requires_grad_(), target=classes, abs=True).detach()
        smooth = torch.nn.functional.avg_pool2d(slopes, _SMOOTH, stride=1, padding=_SMOOTH // 2)
        large = torch.nn.functional.interpolate(smooth, scale_factor=ENLARGED, mode="bilinear", align_corners=False)
        greatest = large.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)
        maps[first : first + _BATCH] = (large / greatest * 255.0).round().to(torch.uint8)[:, 0].numpy()
    return maps


def import_captum() -> Any:
    """`captum.attr`, imported when it is first needed.

    Raises:
        ExtraMissingError: captum is not installed.
    """
    try:
        import captum.attr as module
    except ImportError as error:
        raise ExtraMissingError(
            "the demo's saliency maps need captum, which is not installed; "
            "install it with: pip install 'neuralartifactdb[demo]'"
        ) from error
    return module
