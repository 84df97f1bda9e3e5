"""Augmentation against torchvision's functions op by op, against explicit loops, and as one graph without a sync."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusionblocks.data.images.augment import (
    AUGMENTATIONS,
    OPS,
    apply_op,
    augment,
    boxes,
    crop,
    flip,
    randaugment,
    resize,
)
from diffusionblocks.scorers.fidelity import torch_fidelity

SIGNED = OPS[1:10]


def pictures(n, channels, size=(32, 32), seed=0):
    """Waves of random direction, contrast and brightness under some noise: edges, gradients and saturated areas."""
    g = torch.Generator().manual_seed(seed)
    a, b, phase, gain, offset = torch.rand(5, n, channels, 1, 1, generator=g)
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    waves = torch.sin(a * x + b * y + 6 * phase) * (30 + 120 * gain) + 60 + 140 * offset
    return (waves + 8 * torch.randn(n, channels, *size, generator=g)).clamp(0, 255).byte()


def pixel_ids(n, size=(8, 10)):
    """Images whose pixels all differ and are not 0, so that a shift or a mirror can be read off."""
    return torch.arange(1, 1 + math.prod(size), dtype=torch.uint8).view(1, 1, *size).repeat(n, 1, 1, 1)


def each(images, name, sign, magnitude=9):
    n = len(images)
    return apply_op(images, torch.full((n,), OPS.index(name)), torch.full((n,), sign), magnitude)


def reference(image, name, sign, magnitude):
    """One (C, H, W) image through torchvision, with RandAugment's own magnitudes."""
    torch_fidelity()  # makes torchvision importable
    from torchvision.transforms import InterpolationMode, RandAugment
    from torchvision.transforms.autoaugment import _apply_op

    values, signed = RandAugment()._augmentation_space(31, tuple(image.shape[1:]))[name]
    assert signed == (name in SIGNED)
    value = float(values[magnitude]) if values.ndim else 0.0
    return _apply_op(image, name, value * sign if signed else value, InterpolationMode.NEAREST, None)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (3, 24, 40)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPS)
def test_op_equals_torchvision(name, sign, shape):
    images = pictures(8, shape[0], shape[1:])
    for magnitude in (0, 1, 9, 19, 30):  # not 20: its shears fall halfway between pixels, where rounding noise decides
        expected = torch.stack([reference(image, name, sign, magnitude) for image in images])
        assert torch.equal(each(images, name, sign, magnitude), expected), magnitude
    unchanged = name == "Identity" or (name == "Color" and shape[0] == 1)
    assert torch.equal(expected, images) == unchanged


@pytest.mark.parametrize("name", OPS)
def test_op_equals_torchvision_on_flat_images(name):
    """One value, two values, and one odd pixel: where autocontrast and equalize must leave an image alone."""
    images = torch.full((5, 3, 32, 32), 77, dtype=torch.uint8)
    images[1, :, :16] = 200
    images[2, :, 3, 3] = 255
    images[3], images[4] = 0, 255
    expected = torch.stack([reference(image, name, 1, 9) for image in images])
    assert torch.equal(each(images, name, 1), expected)


def test_ops_mix_in_a_batch():
    images = pictures(56, 3)
    op, sign = torch.arange(56) % 14, 1 - 2 * (torch.arange(56) % 4 // 2)
    out = apply_op(images, op, sign)
    for i in range(56):
        assert torch.equal(out[i], reference(images[i], OPS[op[i]], int(sign[i]), 9)), OPS[op[i]]


def test_crop_is_a_window_of_the_padded_image():
    n, h, w = 4050, 8, 10
    image, out = pixel_ids(1)[0, 0], crop(pixel_ids(n))
    seen = torch.zeros(9, 9)
    for top in range(9):
        for left in range(9):
            window = torch.zeros(h, w, dtype=torch.uint8)
            for row in range(h):
                for column in range(w):
                    y, x = row + top - 4, column + left - 4
                    if 0 <= y < h and 0 <= x < w:
                        window[row, column] = image[y, x]
            seen[top, left] = (out[:, 0] == window).flatten(1).all(1).sum()
    assert seen.sum() == n  # every output is one of the 81 windows
    assert seen.min() > 15 and seen.max() < 100  # 50 expected of each, standard deviation 7


def test_crop_and_flip_move_channels_together():
    images = pixel_ids(64).repeat(1, 3, 1, 1)
    for out in (crop(images), flip(images)):
        assert torch.equal(out[:, :1].expand(-1, 3, -1, -1), out)


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (1, (24, 40))])
def test_a_resized_crop_equals_torchvisions(channels, size):
    """Of float images, which are not rounded: larger and smaller boxes than the image's half, thin ones, the whole."""
    torch_fidelity()
    from torchvision.transforms.v2.functional import resized_crop as theirs

    h, w = size
    asked = [(0, 0, h, w), (3, 5, 9, 11), (h - 1, w - 1, 1, 1), (0, 2, h, 3), (5, 0, 2, w), (1, 1, h - 1, w - 2)]
    images = pictures(len(asked), channels, size)
    found = resize(images, *torch.tensor(asked).T)
    for i, box in enumerate(asked):
        expected = theirs(images[i].float(), *box, list(size), antialias=True)
        assert (found[i] - expected).abs().max() < 0.5 + 1e-3, box  # what rounding takes
    assert found.dtype == torch.uint8 and torch.equal(found[0], images[0])


@pytest.mark.parametrize("size", [(64, 64), (20, 90)])  # of the second, some try does not fit, and often none
def test_boxes_are_distributed_as_torchvisions(size):
    torch_fidelity()
    from torchvision.transforms import RandomResizedCrop

    n, image = 4000, torch.empty(1, *size)
    torch.manual_seed(0)
    found = torch.stack(boxes(n, *size, torch.device("cpu")), 1).double()
    top, left, height, width = found.T
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) > 0
    assert (top + height).max() <= size[0] and (left + width).max() <= size[1]
    theirs = [RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(n)]
    theirs = torch.tensor(theirs, dtype=torch.float64)
    for values in (lambda x: x, lambda x: x.square(), lambda x: x[:, [2]] * x[:, [3]], lambda x: x[:, [2]] / x[:, [3]]):
        mine, other = values(found), values(theirs)
        error = ((mine.var(0) + other.var(0)) / n).sqrt()
        assert ((mine.mean(0) - other.mean(0)).abs() <= 4.5 * error).all()


def test_flip_mirrors_half_of_the_samples():
    n, images = 1000, pixel_ids(1000)
    out, flipped = flip(images), 0
    mirrored = torch.stack([images[0, :, :, column] for column in reversed(range(10))], dim=2)
    for i in range(n):
        flipped += torch.equal(out[i], mirrored)
        assert torch.equal(out[i], mirrored) or torch.equal(out[i], images[i])
    assert abs(flipped - n / 2) < 80  # five standard deviations


@pytest.mark.slow
def test_every_op_and_sign_is_drawn_equally_often():
    """Told from the results: all 23 outcomes (14 ops, 9 of them with two signs) of one image differ."""
    n, image = 14000, pictures(1, 3, (16, 16), seed=1)
    out = randaugment(image.expand(n, -1, -1, -1), num_ops=1)
    total = 0
    for name in OPS:
        for sign in (1, -1) if name in SIGNED else (1,):
            share = (out == each(image, name, sign)).flatten(1).all(1).sum().item()
            expected = n / 14 / (2 if name in SIGNED else 1)
            assert abs(share - expected) < 5 * math.sqrt(expected), (name, sign)
            total += share
    assert total == n


def test_rounds_draw_anew():
    image = pictures(1, 3, (16, 16), seed=1)
    out = randaugment(image.expand(4000, -1, -1, -1), num_ops=2)
    assert len(out.unique(dim=0)) > 200  # of up to 23 * 23; the same draw twice would leave 23


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_result_depends_on_the_seed_only(name, channels):
    images = pictures(32, channels)
    before = images.clone()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment(images, [name]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert torch.equal(images, before)
    assert results[0].dtype == torch.uint8 and results[0].shape == images.shape


def test_augment_applies_in_order():
    images = pictures(32, 3)
    torch.manual_seed(0)
    expected = randaugment(flip(crop(images)))
    torch.manual_seed(0)
    assert torch.equal(augment(images, ["crop", "flip", "randaugment"]), expected)
    assert augment(images, []) is images


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_one_graph_without_host_sync(channels):
    """A fake tensor has no values, so .item(), a mask index or a branch raises; fullgraph forbids graph breaks."""
    images = pictures(32, channels)
    with FakeTensorMode() as mode:
        out = augment(mode.from_tensor(images), list(AUGMENTATIONS))
    assert out.dtype == torch.uint8 and out.shape == images.shape

    torch.manual_seed(0)
    expected = augment(images, list(AUGMENTATIONS))
    torch.manual_seed(0)
    compiled = torch.compile(augment, fullgraph=True, backend="eager")
    assert torch.equal(compiled(images, list(AUGMENTATIONS)), expected)
