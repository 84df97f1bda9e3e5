"""Image augmentation of a whole batch, as tensor code that runs where the images are.

RandAugment is Cubuk et al. (2020), arXiv:1909.13719, with torchvision's defaults: 14 ops, 31 magnitude bins, nearest
neighbour, black fill. Images are uint8 (N, C, H, W), C = 1 or 3, sides of at least 3 pixels. No branch, shape or copy
depends on a tensor's value: the host never waits for a GPU, and torch.compile sees one graph. So every op is computed
for every sample, and each sample keeps the one that it drew.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusionblocks.base.augmentations import AUGMENTATIONS

OPS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness",
    "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
# Blends cut off decimals, so the last bit of a factor can move a pixel by 1: these are torchvision's, to the bit.
BLENDS = torch.linspace(0, 0.9, 31, device="cpu").tolist()


def crop(images: Tensor, padding: int = 4) -> Tensor:
    """Crop at the old size, at a random place of the image with `padding` black pixels on every side."""
    n, _, h, w = images.shape
    top, left = torch.randint(2 * padding + 1, (2, n, 1, 1), device=images.device)
    rows = top + torch.arange(h, device=images.device)[:, None]  # (N, H, 1)
    columns = left + torch.arange(w, device=images.device)  # (N, 1, W)
    return take(F.pad(images, [padding] * 4), rows, columns)


def resized_crop(images: Tensor) -> Tensor:
    """A random box of each image at the old size, as torchvision's RandomResizedCrop (Szegedy et al. 2015)."""
    return resize(images, *boxes(len(images), *images.shape[2:], images.device))


def boxes(n: int, h: int, w: int, device: torch.device, tries: int = 10) -> tuple[Tensor, ...]:
    """Tops, lefts, heights and widths (N,) of boxes in images of h x w: 8% to 100% of the area, 3:4 to 4:3.

    The first of so many tries that fits; if none does, the most of the image that has such a ratio, at its centre.
    """
    area = h * w * torch.empty(n, tries, device=device).uniform_(0.08, 1)
    ratio = torch.empty(n, tries, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    heights, widths = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (heights > 0) & (heights <= h) & (widths > 0) & (widths <= w)
    first, any_fits = fits.byte().argmax(1, keepdim=True), fits.any(1)
    height = torch.where(any_fits, heights.gather(1, first)[:, 0], min(h, round(w * 4 / 3)))
    width = torch.where(any_fits, widths.gather(1, first)[:, 0], min(w, round(h * 4 / 3)))
    top, left = torch.randint(1 << 30, (2, n), device=device) % torch.stack([h - height + 1, w - width + 1])
    return torch.where(any_fits, top, (h - height) // 2), torch.where(any_fits, left, (w - width) // 2), height, width


def resize(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Each image's box (integers (N,)) at the image's size, bilinear with antialiasing, as torchvision on tensors."""
    rows, columns = lines(top, height, images.shape[2]), lines(left, width, images.shape[3])
    # In double precision, or a GPU's TF32 products would move pixels by 1.
    return (rows[:, None] @ images.double() @ columns.mT[:, None]).round().clamp(0, 255).byte()


def lines(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(N, size, size): what each pixel of a line of `size` weighs in each one that a part of it is resized to.

    A triangle around the pixel's place, one pixel of the larger of the two lines to each side, cut off at the part.
    """
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    centres = torch.arange(size, dtype=torch.float64, device=start.device) + 0.5
    places = start + length / size * centres[:, None]
    weights = (1 - (centres - places).abs() / (length / size).clamp(min=1)).clamp(min=0)
    weights = weights * ((centres > start) & (centres < start + length))
    return weights / weights.sum(2, keepdim=True)


def flip(images: Tensor) -> Tensor:
    """Mirror left and right, each sample with probability 1/2."""
    coin = torch.randint(2, (len(images), 1, 1, 1), device=images.device)
    return torch.where(coin == 1, images.flip(3), images)


def randaugment(images: Tensor, num_ops: int = 2, magnitude: int = 9) -> Tensor:
    """Apply `num_ops` ops one after another; each sample draws its op and its sign anew every time."""
    for _ in range(num_ops):
        op = torch.randint(len(OPS), (len(images),), device=images.device)
        sign = 2 * torch.randint(2, (len(images),), device=images.device) - 1
        images = apply_op(images, op, sign, magnitude)
    return images


def apply_op(images: Tensor, op: Tensor, sign: Tensor, magnitude: int = 9) -> Tensor:
    """Apply to sample i the op `OPS[op[i]]` at bin `magnitude` of 0 to 30; `sign[i]` is 1 or -1. Both are (N,) ints."""
    strength = magnitude / 30
    op, sign = op.view(-1, 1, 1, 1), sign.view(-1, 1, 1, 1)
    out = affine(images, op, sign, strength)  # leaves the samples of all other ops as they are
    out = torch.where(is_op(op, *blend_ops(images)), blend(images, op, sign, BLENDS[magnitude]), out)
    out = torch.where(is_op(op, "Posterize"), images & (256 - 2 ** round(4 * strength)), out)
    out = torch.where(is_op(op, "Solarize") & (images >= 255 * (1 - strength)), 255 - images, out)
    out = torch.where(is_op(op, "AutoContrast"), autocontrast(images), out)
    return torch.where(is_op(op, "Equalize"), equalize(images), out)


def is_op(op: Tensor, *names: str) -> Tensor:
    """Which samples drew one of these ops, in the shape of `op`."""
    return sum(op == OPS.index(name) for name in names) > 0


def take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel (rows, columns) of every sample; (N, C, *, *) and two that broadcast to (N, H, W) give (N, C, H, W)."""
    n, c, _, width = images.shape
    index = rows * width + columns
    pixels = images.flatten(2).gather(2, index.view(n, 1, -1).expand(-1, c, -1))
    return pixels.view(n, c, *index.shape[1:])


def affine(images: Tensor, op: Tensor, sign: Tensor, strength: float) -> Tensor:
    """The five geometric ops: output pixel (x, y), from the centre, shows input pixel A (x, y) + b, A and b per sample.

    Shears keep the top left corner in place (as in PIL, hence their b), rotation is counterclockwise.
    """
    _, _, h, w = images.shape
    op, sign = op[:, 0], sign[:, 0]  # (N, 1, 1)
    shear_x, shear_y = (is_op(op, name) * sign * (0.3 * strength) for name in ("ShearX", "ShearY"))
    move_x = is_op(op, "TranslateX") * sign * int(150 / 331 * w * strength)  # 150 pixels of ImageNet's 331
    move_y = is_op(op, "TranslateY") * sign * int(150 / 331 * h * strength)
    angle = math.radians(30 * strength)
    cos = torch.where(is_op(op, "Rotate"), math.cos(angle), 1.0)
    sin = is_op(op, "Rotate") * sign * math.sin(angle)

    x = torch.arange(w, device=images.device) - (w - 1) / 2
    y = torch.arange(h, device=images.device)[:, None] - (h - 1) / 2
    columns = cos * x - sin * y + shear_x * (y + h / 2) - move_x + (w - 1) / 2
    rows = sin * x + cos * y + shear_y * (x + w / 2) - move_y + (h - 1) / 2
    columns, rows = columns.round().long(), rows.round().long()  # (N, H, W)
    inside = (columns >= 0) & (columns < w) & (rows >= 0) & (rows < h)
    return take(images, rows.clamp(0, h - 1), columns.clamp(0, w - 1)) * inside[:, None]


def blend_ops(images: Tensor) -> tuple[str, ...]:
    """The ops that mix an image with a poorer version of itself; a gray image has no color to change."""
    return ("Brightness", "Contrast", "Sharpness") + ("Color",) * (images.shape[1] == 3)


def blend(images: Tensor, op: Tensor, sign: Tensor, change: float) -> Tensor:
    """`factor * image + (1 - factor) * other`, where factor is 1 + change or 1 - change.

    The other is black (Brightness), the gray image (Color), its mean (Contrast) or the blurred image (Sharpness).
    """
    x = images.float()
    gray = (0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]).floor() if x.shape[1] == 3 else x
    blur = (9 * F.avg_pool2d(x, 3, stride=1) + 4 * x[..., 1:-1, 1:-1]) / 13  # PIL's SMOOTH: ones around a 5
    other = x.clone()
    other[..., 1:-1, 1:-1] = blur.round()  # the rim stays sharp
    other = torch.where(is_op(op, "Color"), gray, other)
    other = torch.where(is_op(op, "Contrast"), gray.mean((1, 2, 3), keepdim=True), other)
    other = torch.where(is_op(op, "Brightness"), 0.0, other)
    factor = torch.where(sign > 0, 1 + change, 1 - change)
    return (factor * x + torch.where(sign > 0, -change, change) * other).clamp(0, 255).byte()


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel to 0..255; a channel of one value stays."""
    x = images.float()  # torch.compile of torch 2.13 takes a wrong amin of uint8 on CPUs
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = (x - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, stretched.clamp(0, 255), x).byte()


def equalize(images: Tensor) -> Tensor:
    """Histogram equalisation of every channel, in PIL's whole numbers; stays where PIL's step is 0."""
    values = images.flatten(2).long()  # (N, C, H * W)
    counts = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    step = (values < values.amax(2, keepdim=True)).sum(2, keepdim=True) // 255  # PIL leaves the top value out
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, values), values).byte().view_as(images)


FUNCTIONS = dict(zip(AUGMENTATIONS, (crop, resized_crop, flip, randaugment), strict=True))


def augment(images: Tensor, names: Sequence[str]) -> Tensor:
    """Apply these augmentations in this order; training uses crop or resized_crop, flip, randaugment."""
    for name in names:
        images = FUNCTIONS[name](images)
    return images
