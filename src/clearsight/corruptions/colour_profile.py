"""IEC 61966-2-1 (sRGB); the others: SMPTE EG 432-1 (P3), Adobe RGB (1998), ITU-R BT.2020, ISO 22028-2 (ROMM RGB)."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import graded

_D65, _D50 = (0.3127, 0.3290), (0.3457, 0.3585)
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))  # ICC.1:2010, annex E
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_ROMM = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))


@method(paper="IEC 61966-2-1", claims="colour")
def colour_profile(x: Tensor, *, severity: int = 3) -> Tensor:
    """A file whose colour profile is ignored: its numbers are of another colour space, and are read as sRGB.

    x (B, C, H, W) in [0, 1], taken to be sRGB -> the same shape: the same colours in the numbers of another space.
    Wide spaces have smaller numbers for the same colour: read as sRGB they are pale, and linear ones dark.  Grey stays
    grey, so that pictures of one channel show only the curve of the space, which Display P3 shares with sRGB.

    Args:
        severity: 1 Display P3 (phones), 2 Adobe RGB 1998 (cameras), 3 Rec. 2020 (films), 4 ProPhoto RGB and 5 ProPhoto
            RGB of linear light (both of raw converters).

    Source: IEC 61966-2-1 (sRGB); SMPTE EG 432-1, Adobe RGB (1998), ITU-R BT.2020 and ISO 22028-2 (the others).

    Pure red of sRGB in Display P3 is (0.92, 0.20, 0.14):

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> [round(v, 2) for v in colour_profile(red, severity=1).flatten().tolist()]
    [0.92, 0.2, 0.14]
    """
    spaces: list[tuple[tuple[tuple[float, float], ...], tuple[float, float], Callable[[Tensor], Tensor]]] = [
        (_P3, _D65, _srgb),
        (_ADOBE, _D65, lambda light: light.pow(256 / 563)),
        (_BT2020, _D65, _bt2020),
        (_ROMM, _D50, _romm),
        (_ROMM, _D50, lambda light: light),
    ]
    primaries, white, curve = graded(severity, spaces)
    low = x.double()
    light = torch.where(low <= 0.04045, low / 12.92, ((low + 0.055) / 1.055).pow(2.4)).expand(-1, 3, -1, -1)
    other = torch.linalg.inv(_to_d50(primaries, white)) @ _to_d50(_SRGB, _D65)
    encoded: Tensor = torch.einsum("ij,bjhw->bihw", other, light).clamp(0, 1)
    read: Tensor = curve(encoded)[:, : x.shape[1]].clamp(0, 1).to(x.dtype)
    return read


def _to_d50(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Tensor:
    """The matrix (3, 3) from linear RGB to XYZ as seen under D50; white is white."""
    columns = torch.stack([_xyz(*p) for p in primaries], 1)
    rgb_to_xyz = columns * torch.linalg.solve(columns, _xyz(*white))
    cones = torch.tensor(_BRADFORD, dtype=torch.float64)
    gain = (cones @ _xyz(*_D50)) / (cones @ _xyz(*white))
    matrix: Tensor = torch.linalg.inv(cones) @ (gain[:, None] * cones) @ rgb_to_xyz
    return matrix


def _xyz(x: float, y: float) -> Tensor:
    return torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)


def _srgb(light: Tensor) -> Tensor:
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.pow(1 / 2.4) - 0.055)


def _bt2020(light: Tensor) -> Tensor:
    return torch.where(light < 0.0181, 4.5 * light, 1.0993 * light.pow(0.45) - 0.0993)


def _romm(light: Tensor) -> Tensor:
    return torch.where(light < 1 / 512, 16 * light, light.pow(1 / 1.8))
