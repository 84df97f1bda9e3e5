"""Data sets from their files to batches, and downloads from a real server on this machine."""

import gzip
import hashlib
import http.server
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Checkout
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from diffusionblocks.base.components import load
from diffusionblocks.base.files import UserError
from diffusionblocks.data import download
from diffusionblocks.data.download import Archive, fetch
from diffusionblocks.data.encode import encode
from diffusionblocks.data.images.dataset import Images
from diffusionblocks.data.images.folder import crop, listing
from diffusionblocks.data.images.latents import VAE, folder_images
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.data.images.sources import cifar, fashion_mnist, tiny_imagenet
from diffusionblocks.data.images.write import moments
from diffusionblocks.data.prepare import prepare
from diffusionblocks.plan.sections import section_name
from diffusionblocks.verbs import main


def header(path):
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["about"])


def as_set(images):
    return {image.tobytes() for image in images}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.safetensors"
    prepare({"name": "digits"}, "nowhere", path)
    return path


# Digits


def test_digits_have_a_fixed_stratified_split(digits):
    from sklearn.datasets import load_digits

    arrays = load_file(digits)
    assert arrays["train_images"].shape == (1437, 1, 8, 8) and arrays["test_images"].shape == (360, 1, 8, 8)
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    shares = np.bincount(arrays["test_labels"]) / np.bincount(labels)
    assert np.abs(shares - 360 / 1797).max() < 0.005
    # Together the two are scikit-learn's digits, each image once and with its own label.
    original = load_digits()
    images = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(-1, 64)
    ours = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    grey = np.round(original.data * 255 / 16).astype(np.uint8)
    assert ours == sorted((image.tobytes(), label) for image, label in zip(grey, original.target, strict=True))
    # The split never moves: numbers of different months stay comparable.
    assert arrays["test_labels"][:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]
    assert not as_set(arrays["train_images"]) & as_set(arrays["test_images"])


def test_digits_come_out_the_same_twice(digits, tmp_path):
    prepare({"name": "digits"}, "nowhere", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == digits.read_bytes()
    first, again = (load("data", "digits")("nowhere", split="validation")["test_labels"] for _ in range(2))
    assert first.tolist() == again.tolist()


def test_digits_use_all_bytes_and_say_what_they_are(digits):
    arrays, about = load_file(digits), header(digits)
    assert arrays["train_images"].dtype == np.uint8
    assert len(np.unique(arrays["train_images"])) == 17  # grey levels
    assert arrays["train_images"].min() == 0 and arrays["train_images"].max() == 255
    assert about["title"] == "scikit-learn digits"
    assert about["shape"] == {"image_size": 8, "channels": 1, "num_classes": 10}
    assert (about["train_size"], about["test_size"]) == (1437, 360)
    pixels = arrays["train_images"] / 255
    assert about["mean"] == [pytest.approx(pixels.mean(), abs=1e-4)]
    assert about["std"] == [pytest.approx(pixels.std(), abs=1e-4)]


def test_validation_split_never_meets_the_test_images(digits, tmp_path):
    prepare({"name": "digits", "split": "validation"}, "nowhere", tmp_path / "validation.safetensors")
    whole, split = load_file(digits), load_file(tmp_path / "validation.safetensors")
    assert len(split["train_images"]) == 1150 and len(split["test_images"]) == 287
    both = as_set(split["train_images"]) | as_set(split["test_images"])
    assert both == as_set(whole["train_images"]) and not both & as_set(whole["test_images"])
    assert not as_set(split["train_images"]) & as_set(split["test_images"])
    label_of = {
        image.tobytes(): label for image, label in zip(whole["train_images"], whole["train_labels"], strict=True)
    }
    for name in ("train", "test"):
        images, labels = split[f"{name}_images"], split[f"{name}_labels"]
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()
    assert header(tmp_path / "validation.safetensors")["title"] == "scikit-learn digits (validation split)"


# Fashion-MNIST


def idx(array):
    """An array of bytes in the real IDX form."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Fashion-MNIST's four files with 20 and 10 random images."""
    counts = {"train": 20, "t10k": 10}
    monkeypatch.setattr(fashion_mnist, "WHOLE", counts)
    random = np.random.default_rng(0)
    arrays = {}
    for name, count in counts.items():
        arrays[name] = random.integers(1, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[name], strict=True):
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path, arrays


def test_fashion_mnist_is_padded_on_all_sides(fashion):
    folder, arrays = fashion
    found = fashion_mnist.fashion_mnist(folder)
    for ours, theirs in (("train", "train"), ("test", "t10k")):
        images, labels = arrays[theirs]
        assert found[f"{ours}_images"].shape == (len(images), 1, 32, 32)
        np.testing.assert_array_equal(found[f"{ours}_images"][:, 0, 2:30, 2:30], images)
        assert found[f"{ours}_images"].astype(int).sum() == images.astype(int).sum(), "the rim is black"
        np.testing.assert_array_equal(found[f"{ours}_labels"], labels)
        assert found[f"{ours}_labels"].dtype == np.int64
    prepare({"name": "fashion_mnist"}, folder, folder / "prepared.safetensors")
    assert header(folder / "prepared.safetensors")["shape"] == {"image_size": 32, "channels": 1, "num_classes": 10}


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda content: content[:-100], "truncated"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "truncated"),
        (lambda content: gzip.compress(b"short"), "not an IDX file"),
        (lambda content: gzip.compress(b""), "not an IDX file"),
        (lambda content: gzip.compress(idx(np.zeros((20, 28), np.uint8))), "not an IDX file"),
        (lambda content: gzip.compress(idx(np.zeros((21, 28, 28), np.uint8))), "shape (20, 28, 28)"),
    ],
    ids=["cut", "cut inside", "short", "empty", "dimensions", "sizes"],
)
def test_fashion_mnist_refuses_a_damaged_file(fashion, damage, word):
    folder, _ = fashion
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="Fetch it again") as refusal:
        fashion_mnist.fashion_mnist(folder)
    assert str(path) in str(refusal.value) and word in str(refusal.value)


def test_absent_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "WHOLE", {"another-name": 1})  # not in Debian's folder either
    with pytest.raises(UserError, match=r"dataset-fashion-mnist.*data_dir") as refusal:
        fashion_mnist.fashion_mnist(tmp_path)
    assert str(tmp_path) in str(refusal.value)


# Fashion-MNIST at 16 x 16


def test_fashion_mnist_16_comes_with_the_package(tmp_path):
    found = fashion_mnist.fashion_mnist_16("nowhere")
    for name, count in (("train", 500), ("test", 100)):
        assert found[f"{name}_images"].shape == (10 * count, 1, 16, 16)
        assert np.bincount(found[f"{name}_labels"]).tolist() == [count] * 10
        assert found[f"{name}_images"].max() == 255 and len(as_set(found[f"{name}_images"])) > 9.9 * count
    prepare({"name": "fashion_mnist_16"}, "nowhere", tmp_path / "prepared.safetensors")
    about = header(tmp_path / "prepared.safetensors")
    assert about["title"] == "Fashion-MNIST 16x16 (6,000 images)"
    assert about["shape"] == {"image_size": 16, "channels": 1, "num_classes": 10}


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_16_is_made_of_the_first_images_of_each_class():
    whole, found = fashion_mnist.fashion_mnist(DEBIAN), fashion_mnist.fashion_mnist_16("nowhere")
    for name, count in (("train", 500), ("test", 100)):
        images, labels = whole[f"{name}_images"], whole[f"{name}_labels"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))
        squares = images[chosen].reshape(-1, 1, 16, 2, 16, 2).astype(int)
        np.testing.assert_array_equal(found[f"{name}_images"], (squares.sum((3, 5)) + 2) // 4)
        np.testing.assert_array_equal(found[f"{name}_labels"], labels[chosen])


# CIFAR

CIFAR = {  # folder in the archive, labels of a record, images by member
    "cifar10": ("cifar-10-batches-bin", 1, {"data_batch_1.bin": 4, "data_batch_2.bin": 2, "test_batch.bin": 4}),
    "cifar100": ("cifar-100-binary", 2, {"train.bin": 6, "test.bin": 4}),
}


def cifar_records(numbers, num_labels):
    """Images whose planes are 10, 20 and 30 plus the image's number, row by row darker; the number is the label."""
    numbers = np.array(numbers, np.uint8)
    records = np.full((len(numbers), num_labels + 3072), 77, np.uint8)  # 77: the coarse label, which nobody wants
    records[:, num_labels - 1] = numbers
    planes = np.zeros((len(numbers), 3, 32, 32), np.uint8)
    planes += np.array([10, 20, 30], np.uint8)[:, None, None] + numbers[:, None, None, None]
    planes += 3 * np.arange(32, dtype=np.uint8)[:, None]
    records[:, num_labels:] = planes.reshape(-1, 3072)
    return records


def know(monkeypatch, name, path):
    """Make a file the one that the workflow knows under this name, by its size and hash."""
    content = path.read_bytes()
    known = Archive(f"http://127.0.0.1:9/{path.name}", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(download.ARCHIVES, name, known)


def cifar_archive(name, folder, monkeypatch, change=lambda member, content: (member, content)):
    """CIFAR's archive with 6 and 4 images, known to the workflow."""
    inside, num_labels, counts = CIFAR[name]
    path, number = folder / Path(download.ARCHIVES[name].url).name, 0
    with tarfile.open(path, "w:gz") as archive:
        for file, count in counts.items():
            number = 0 if "test" in file else number
            records = cifar_records(range(number, number + count), num_labels)
            records[:, -1] += "test" in file  # other images than in training
            content = records.tobytes()
            number += count
            member = tarfile.TarInfo(f"{inside}/{file}")
            member.size = len(content)
            member, content = change(member, content)
            archive.addfile(member, io.BytesIO(content) if content else None)
    know(monkeypatch, name, path)
    monkeypatch.setattr(cifar, name.upper(), [f"{inside}/{file}" for file in counts])
    return path


@pytest.mark.parametrize(("name", "title"), [("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100")])
def test_cifar_has_fine_labels_and_colour_planes_in_order(tmp_path, monkeypatch, name, title):
    cifar_archive(name, tmp_path, monkeypatch)
    found = load("data", name)(tmp_path)
    assert found["title"] == title
    assert found["train_images"].shape == (6, 3, 32, 32) and found["test_images"].shape == (4, 3, 32, 32)
    assert found["train_labels"].tolist() == [0, 1, 2, 3, 4, 5] and found["test_labels"].tolist() == [0, 1, 2, 3]
    assert found["train_images"][4, :, 0, 7].tolist() == [14, 24, 34]
    assert found["train_images"][4, 1, :3, 0].tolist() == [24, 27, 30], "rows are rows"
    prepare({"name": name}, tmp_path, tmp_path / "prepared.safetensors")
    about = header(tmp_path / "prepared.safetensors")
    assert about["mean"] == pytest.approx([(10 * c + 2.5 + 46.5) / 255 for c in (1, 2, 3)], abs=1e-4)
    assert len(about["std"]) == 3


def link(member, content):
    member.type, member.linkname = tarfile.SYMTYPE, "other.bin"  # with a size of its own, which tar allows
    return member, b""


def hard_link(member, content):
    member.type, member.linkname = tarfile.LNKTYPE, "cifar-100-binary/other.bin"
    return member, b""


def renamed(member, content):
    member.name = "../" + member.name
    return member, content


@pytest.mark.parametrize("change", [link, hard_link, renamed])
def test_cifar100_takes_only_regular_files(tmp_path, monkeypatch, change):
    path = cifar_archive("cifar100", tmp_path, monkeypatch, change)
    with pytest.raises(UserError, match=r"has no regular file cifar-100-binary/te(st|rain)\.bin") as refusal:
        cifar.cifar100(tmp_path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet", "text8", "lm1b"])
@pytest.mark.parametrize("other", [b"<html>not found</html>", None], ids=["html", "a byte"])
def test_any_other_file_in_an_archives_place_is_refused_by_its_size_or_hash(tmp_path, monkeypatch, name, other):
    path = tmp_path / Path(download.ARCHIVES[name].url).name
    path.write_bytes(bytes(1000))
    know(monkeypatch, name, path)
    path.write_bytes(other or bytes(999) + b"!")
    with pytest.raises(UserError, match=r"(truncated|corrupt): .* Delete it and start again\.$") as refusal:
        load("data", name)(tmp_path)
    assert str(refusal.value).startswith(str(path))


# Tiny ImageNet

WNIDS = ["n03", "n01", "n02"]  # as in the real archive, not in their order
VALIDATION = [1, 2, 0, 0, 1]  # validation images' classes, as labels
TRAIN, VAL = "tiny-imagenet-200/train", "tiny-imagenet-200/val"
CLASS_NAMES, ANNOTATIONS = "tiny-imagenet-200/wnids.txt", f"{VAL}/val_annotations.txt"


def jpeg(color, size=(64, 64)):
    """A JPEG of one colour, gray if it is a number; each column's upper half is black."""
    from PIL import Image

    image, file = Image.new("RGB" if isinstance(color, tuple) else "L", size, color), io.BytesIO()
    image.paste(0, (0, 0, size[0], size[1] // 2))
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def tiny_members():
    """{name: content} of the archive with 4 training images of 3 classes and 5 validation images."""
    members = {"tiny-imagenet-200/": b"", "tiny-imagenet-200/words.txt": b"n01\tgoldfish\n"}
    members[CLASS_NAMES] = "".join(f"{name}\n" for name in WNIDS).encode()
    for name in WNIDS:
        label = int(name[1:]) - 1
        for number in (2, 0, 3, 1):
            color = 100 + 10 * number if (label, number) == (1, 3) else (200, 40 + 60 * label, 100 + 10 * number)
            members[f"{TRAIN}/{name}/images/{name}_{number}.JPEG"] = jpeg(color)
        members[f"{TRAIN}/{name}/{name}_boxes.txt"] = f"{name}_0.JPEG\t0\t10\t63\t58\n".encode()
    lines = [f"val_{number}.JPEG\tn0{label + 1}\t0\t32\t44\t62\n" for number, label in enumerate(VALIDATION)]
    members[ANNOTATIONS] = "".join(reversed(lines)).encode()
    for number, label in enumerate(VALIDATION):
        members[f"{VAL}/images/val_{number}.JPEG"] = jpeg((20, 40 + 60 * label, 100 + 10 * number))
    members["tiny-imagenet-200/test/images/test_0.JPEG"] = b"nobody reads this"
    return members


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that packs members as Tiny ImageNet's archive, known to the workflow, and gives its path."""
    monkeypatch.setattr(tiny_imagenet, "TRAIN", 4)
    monkeypatch.setattr(tiny_imagenet, "VALIDATION", 5)
    path = tmp_path / Path(download.ARCHIVES["tiny_imagenet"].url).name

    def pack(members):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        know(monkeypatch, "tiny_imagenet", path)
        return path

    return pack


def test_tiny_imagenet_by_class_and_number(tiny, tmp_path):
    found = tiny_imagenet.tiny_imagenet(tiny(tiny_members()).parent)
    assert found["title"] == "Tiny ImageNet"
    assert found["train_images"].shape == (12, 3, 64, 64) and found["test_images"].shape == (5, 3, 64, 64)
    assert found["train_images"].dtype == np.uint8 and found["test_images"].dtype == np.uint8
    assert found["train_labels"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert found["test_labels"].tolist() == VALIDATION
    for split, red, numbers in (("train", 200, 3 * [0, 1, 2, 3]), ("test", 20, range(5))):
        labels = found[f"{split}_labels"]
        for image, label, number in zip(found[f"{split}_images"], labels, numbers, strict=True):
            gray = (split, label, number) == ("train", 1, 3)
            color = [100 + 10 * number] * 3 if gray else [red, 40 + 60 * label, 100 + 10 * number]
            lower = image[:, 40:].reshape(3, -1).astype(int)  # rows are rows: the upper half is black
            np.testing.assert_allclose(lower, np.repeat(np.array(color)[:, None], lower.shape[1], 1), atol=2)
            assert image[:, :24].max() <= 2
    prepare({"name": "tiny_imagenet"}, tmp_path, tmp_path / "prepared.safetensors")
    assert header(tmp_path / "prepared.safetensors")["shape"] == {"image_size": 64, "channels": 3, "num_classes": 3}


def test_tiny_imagenet_validation_split_leaves_the_archives_validation_images_alone(tiny):
    found = tiny_imagenet.tiny_imagenet(tiny(tiny_members()).parent, split="validation")
    assert found["title"] == "Tiny ImageNet (validation split)"
    assert (len(found["train_labels"]), len(found["test_labels"])) == (10, 2)
    red = np.concatenate([found["train_images"], found["test_images"]])[:, 0, 40:].mean((1, 2))
    assert sorted(red.round(-1).tolist()) == [130] + [200] * 11, "the training images alone"


def test_a_byte_of_tiny_imagenet_that_is_not_the_known_one_is_refused(tiny):
    path = tiny(tiny_members())
    content = path.read_bytes()
    position = content.index(f"{VAL}/images/val_0.JPEG".encode()) + 100
    path.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
    with pytest.raises(UserError, match=r"corrupt: .* Delete it and start again\.$") as refusal:
        tiny_imagenet.tiny_imagenet(path.parent)
    assert str(refusal.value).startswith(str(path))


# What a source returns

GOOD = {
    "title": "mine",
    "train_images": np.zeros((6, 3, 4, 4), np.uint8),
    "train_labels": np.arange(6) % 3,
    "test_images": np.ones((2, 3, 4, 4), np.uint8),
    "test_labels": np.arange(2),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A function that writes a user's own module of sources, and gives its path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_sets", raising=False)
    path = tmp_path / "my_sets.py"

    def write(annotation="ImageSet", body="return FOUND"):
        path.write_text(
            "from diffusionblocks.data.images.source import ImageSet\n"
            "FOUND = {}\n"
            f"def squares(data_dir, *, side=4) -> {annotation}:\n    {body}\n"
        )
        import my_sets

        return path, my_sets

    return write


def test_a_users_own_source_is_prepared(mine, tmp_path):
    _, module = mine(body="return {**FOUND, 'title': f'{data_dir} {side}'}")
    module.FOUND = GOOD
    prepare({"name": "my_sets.squares", "side": 8}, "here", tmp_path / "x.safetensors")
    about = header(tmp_path / "x.safetensors")
    assert about["title"] == "here 8" and about["shape"] == {"image_size": 4, "channels": 3, "num_classes": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": GOOD["train_images"].astype(np.float32)}, "`train_images` should be uint8 (N, C, S, S)"),
        ({"train_images": GOOD["train_images"][:, 0]}, "is uint8 (6, 4, 4)"),
        ({"test_images": GOOD["test_images"][:, :, :3]}, "`test_images` should be uint8 (N, C, S, S), and is"),
        ({"test_images": GOOD["test_images"][:0]}, "`test_images` should be"),
        ({"test_images": GOOD["test_images"][:, :1]}, "images of (3, 4, 4) and test images of (1, 4, 4)"),
        ({"train_images": [[1]]}, "and is list"),
        ({"train_labels": GOOD["train_labels"].astype(np.int32)}, "`train_labels` should be int64 (6,)"),
        ({"train_labels": GOOD["train_labels"][:5]}, "as many as images, and is int64 (5,)"),
        ({"train_labels": GOOD["train_labels"] - 1}, "are -1 to 1 in training"),
        ({"test_labels": np.array([0, 3])}, "0 to 3 in the test set"),
        ({"train_labels": GOOD["train_labels"] + 1}, "no training image has the label 0: labels count from 0"),
        ({"train_labels": GOOD["train_labels"] % 2 * 2}, "no training image has the label 1"),
        ({"test_images": GOOD["train_images"][:2]}, "every test image is among the training images"),
        ({"title": ""}, "`title` should be a text"),
        (
            {"more": 1},
            "returned title, train_images, train_labels, test_images, test_labels, more instead of a dict of",
        ),
    ],
)
def test_a_set_that_is_not_as_it_should_be_names_its_source(mine, tmp_path, change, words):
    path, module = mine()
    module.FOUND = {**GOOD, **change}
    with pytest.raises(UserError) as refusal:
        prepare({"name": "my_sets.squares"}, "nowhere", tmp_path / "x.safetensors")
    assert str(refusal.value).startswith(f"{path}: data source my_sets.squares: ")
    assert words in str(refusal.value), refusal.value
    assert not (tmp_path / "x.safetensors").exists()


def test_a_source_says_what_it_returns(mine, tmp_path):
    path, _ = mine(annotation="dict")
    with pytest.raises(UserError, match=r"must say what it returns: `-> ImageSet`, `-> LatentSet`, `-> TextSet`"):
        prepare({"name": "my_sets.squares"}, "nowhere", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="returned NoneType instead of a dict"):
        path.with_name("my_nothing.py").write_text("def nothing(data_dir) -> 'ImageSet':\n    pass\n")
        prepare({"name": "my_nothing.nothing"}, "nowhere", tmp_path / "x.safetensors")


# Mean and deviation


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_the_pixels(channels):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2500, channels, 4, 4), dtype=np.uint8)  # two batches and a half
    images[2000:] //= 2
    images[:, 0] //= 3
    pixels = images.transpose(1, 0, 2, 3).reshape(channels, -1) / 255
    mean, std = moments(images)
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-12)
    assert moments(np.full((3, channels, 2, 2), 77, np.uint8))[1].tolist() == pytest.approx([0] * channels, abs=1e-12)


# Batches


@pytest.fixture
def colours(tmp_path):
    """A prepared set of 5 training and 7 test images, channels unlike each other."""
    random = np.random.default_rng(0)
    arrays = {
        "train_images": random.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8),
        "train_labels": np.arange(5),
        "test_images": random.integers(0, 256, (7, 3, 4, 4), dtype=np.uint8),
        "test_labels": np.arange(7),
    }
    arrays["train_images"][:, 1] //= 4
    about = {
        "title": "colours",
        "shape": {"image_size": 4, "channels": 3, "num_classes": 7},
        "mean": [0.5, 0.1, 0.4],
        "std": [0.3, 0.1, 0.2],
        "train_size": 5,
        "test_size": 7,
    }
    save_file(arrays, tmp_path / "colours.safetensors", metadata={"about": json.dumps(about)})
    return Pictures(tmp_path / "colours.safetensors", torch.device("cpu")), arrays


def test_training_batches_are_the_chosen_images_normalised_by_channel(colours):
    images, arrays = colours
    batch = images.train_batch(torch.tensor([3, 0]))
    assert batch["label"].tolist() == [3, 0] and batch["image"].dtype == torch.float32
    expected = arrays["train_images"][[3, 0]] / 255 - np.array([0.5, 0.1, 0.4])[:, None, None]
    expected /= np.array([0.3, 0.1, 0.2])[:, None, None]
    np.testing.assert_allclose(batch["image"].numpy(), expected, atol=1e-5)
    assert batch["signed"].dtype == torch.float32
    np.testing.assert_allclose(batch["signed"].numpy(), arrays["train_images"][[3, 0]] / 127.5 - 1, atol=1e-6)


def test_images_come_back_from_their_signed_form_bit_by_bit(colours):
    images, arrays = colours
    signed = torch.cat([batch["signed"] for batch in images.test_batches(3)])
    assert torch.equal(images.decode(signed.double()), torch.from_numpy(arrays["test_images"]))
    assert images.decode(torch.tensor([[[[-1.5, 1.01]]]])).flatten().tolist() == [0, 255]


def test_pixels_are_all_images_in_order(colours):
    images, arrays = colours
    for split, sizes in (("train", [3, 2]), ("test", [3, 3, 1])):
        batches = list(images.pixels(split, 3))
        assert [len(batch) for batch in batches] == sizes
        assert torch.equal(torch.cat(batches), torch.from_numpy(arrays[f"{split}_images"]))


def test_pixel_sets_load_nothing_that_only_latents_need(digits):
    program = (
        "import sys, torch; from diffusionblocks.data.images.dataset import Images\n"
        "images = Images(sys.argv[1], 'cpu')\n"
        "images.train_batch(torch.arange(2)); print({'PIL', 'diffusers', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, digits], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_training_batches_are_augmented_and_test_batches_are_not(colours):
    images, _ = colours
    torch.manual_seed(0)
    indices = torch.arange(5)
    plain, flipped = images.train_batch(indices)["image"], images.train_batch(indices, ["flip"])["image"]
    is_flipped = [torch.equal(b, a.flip(2)) for a, b in zip(plain, flipped, strict=True)]
    assert 0 < sum(is_flipped) < 5
    assert all(same or torch.equal(a, b) for same, a, b in zip(is_flipped, plain, flipped, strict=True))
    first, again = (torch.cat([batch["image"] for batch in images.test_batches(3)]) for _ in range(2))
    assert torch.equal(first, again)


def test_test_batches_are_all_images_in_order(colours):
    images, arrays = colours
    batches = list(images.test_batches(3))
    assert [len(batch["image"]) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch["label"] for batch in batches]).tolist() == list(range(7))
    together = torch.cat([batch["image"] for batch in batches])[:, 2].numpy()
    np.testing.assert_allclose(together, (arrays["test_images"][:, 2] / 255 - 0.4) / 0.2, atol=1e-5)


def test_normalised_training_images_have_mean_0_and_deviation_1(digits):
    images = Images(digits, torch.device("cpu"))
    batch = images.train_batch(torch.arange(images.train_size))["image"]
    assert abs(batch.mean().item()) < 1e-3 and abs(batch.std().item() - 1) < 1e-3


# ImageNet as latents

SIZES = {  # width, height and mode of the JPEGs, by class folder; small ones are enlarged
    "train/n01": [(45, 33, "RGB"), (20, 64, "L"), (33, 32, "CMYK")],
    "train/n02": [(70, 90, "RGB"), (11, 9, "RGB")],
    "val/n01": [(40, 20, "RGB")],
    "val/n02": [(16, 16, "RGB"), (17, 31, "L")],
}


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    """A tiny autoencoder with random weights, as sd-vae-ft-ema lies there: 4 channels, one latent for 2 x 2 pixels."""
    from diffusionblocks.data.images.latents import autoencoder_class

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    network = autoencoder_class()(
        latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4, scaling_factor=0.5, **blocks
    )
    path = tmp_path_factory.mktemp("vae") / "sd-vae-ft-ema"
    network.save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture
def imagenet(tmp_path, monkeypatch, vae_folder):
    """A data_dir with a tiny ImageNet of real JPEGs and the tiny autoencoder."""
    from PIL import Image

    random = np.random.default_rng(0)
    for folder, images in SIZES.items():
        (tmp_path / "imagenet" / folder).mkdir(parents=True)
        for number, (width, height, mode) in enumerate(images):
            pixels = random.integers(0, 256, (height, width, len(mode)), dtype=np.uint8).squeeze()
            path = tmp_path / "imagenet" / folder / f"{folder[-3:]}_{number}.JPEG"
            Image.fromarray(pixels, mode).save(path, "JPEG", quality=95)
    (tmp_path / "imagenet/train/n01/notes.txt").write_text("no image")
    (tmp_path / "sd-vae-ft-ema").symlink_to(vae_folder)
    for name, file in (("vae_config", "config.json"), ("vae_weights", "diffusion_pytorch_model.safetensors")):
        know(monkeypatch, name, vae_folder / file)
    return tmp_path


def section(shards=2, image_size=16):
    return {"name": "imagenet", "shards": shards, "image_size": image_size}


def prepared(data_dir, shards=2):
    """The prepared file of the tiny ImageNet, by way of so many shards."""
    files = [data_dir / f"shards{shards}" / f"shard{shard}.safetensors" for shard in range(shards)]
    for shard, file in enumerate(files):
        encode(section(shards), shard, data_dir, file)
    prepare(section(shards), data_dir, data_dir / f"imagenet{shards}.safetensors", files)
    return data_dir / f"imagenet{shards}.safetensors"


def test_folder_is_listed_by_class_and_name(imagenet):
    found = listing(imagenet / "imagenet/train")
    assert found.files == ["n01/n01_0.JPEG", "n01/n01_1.JPEG", "n01/n01_2.JPEG", "n02/n02_0.JPEG", "n02/n02_1.JPEG"]
    assert found.labels.tolist() == [0, 0, 0, 1, 1] and found.classes == ["n01", "n02"]


def test_centre_crop_halves_by_boxes_first(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 64, (64, 100, 3), dtype=np.uint8) * 4
    Image.fromarray(pixels).save(tmp_path / "image.png")
    halved = pixels.reshape(32, 2, 50, 2, 3).astype(int).sum((1, 3)) / 4  # whole numbers
    expected = halved[:, 9:41].transpose(2, 0, 1)
    np.testing.assert_array_equal(crop(tmp_path / "image.png", 32), expected)
    np.testing.assert_array_equal(crop(tmp_path / "image.png", 64), pixels[:, 18:82].transpose(2, 0, 1))


def test_images_of_any_mode_and_size_become_colour_squares(imagenet):
    batches = list(folder_images(imagenet / "imagenet/train", 16, batch_size=2))
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)]
    images = torch.cat(batches)
    assert images.dtype == torch.uint8 and len(as_set(images.numpy())) == 5
    assert torch.equal(images[1, 0], images[1, 1]), "grey stays grey"
    assert images[0].float().std() > 20


def test_latents_are_scaled_posterior_samples_whatever_the_shards(imagenet):
    whole, split = load_file(prepared(imagenet, 1)), load_file(prepared(imagenet, 3))
    assert whole["train_images"].dtype == np.float16 and whole["train_images"].shape == (5, 4, 8, 8)
    assert whole["train_labels"].tolist() == [0, 0, 0, 1, 1] and whole["test_labels"].tolist() == [0, 1, 1]
    assert sorted(whole) == ["test_labels", "train_images", "train_labels"]
    np.testing.assert_allclose(whole["train_images"], split["train_images"], atol=2e-3)
    assert header(imagenet / "imagenet1.safetensors") == header(imagenet / "imagenet3.safetensors")

    vae = VAE(imagenet, torch.device("cpu"))
    image = torch.from_numpy(crop(imagenet / "imagenet/train/n02/n02_0.JPEG", 16).copy())[None]
    posterior = vae._network.encode(image / 127.5 - 1).latent_dist
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))  # it is number 3 of the list
    expected = 0.5 * (posterior.mean + posterior.std * noise)
    np.testing.assert_allclose(whole["train_images"][3], expected[0].numpy(), atol=2e-3)
    one, other = vae.encode(torch.cat([image, image]), [3, 4])
    torch.testing.assert_close(one, expected[0])
    assert (one - other).abs().mean() > 0.01, "noise of its own for each image"


def test_latents_say_what_they_are(imagenet):
    about = header(prepared(imagenet))
    weights = hashlib.sha256((imagenet / "sd-vae-ft-ema/diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()
    assert about == {
        "title": "ImageNet 16x16, a part: 5 + 3 images in 2 classes",
        "shape": {"image_size": 8, "channels": 4, "num_classes": 2},
        "mean": [0] * 4,
        "std": [1] * 4,
        "train_size": 5,
        "test_size": 3,
        "latents": {
            "vae": {"name": "stabilityai/sd-vae-ft-ema", "sha256": weights},
            "scale": 0.5,
            "image_size": 16,
            "folder": "imagenet",
        },
    }


def test_batches_of_latents(imagenet):
    path = prepared(imagenet)
    images = Pictures(path, torch.device("cpu"))
    batch = images.train_batch(torch.tensor([4, 1]))
    assert batch["image"] is batch["signed"] and batch["image"].dtype == torch.float32
    np.testing.assert_array_equal(batch["image"].numpy(), load_file(path)["train_images"][[4, 1]].astype(np.float32))
    assert batch["label"].tolist() == [1, 0]
    with pytest.raises(UserError, match="no latents of its test images"):
        next(images.test_batches(2))
    for wanted in (lambda: images.pixels("train"), lambda: images.decode(batch["signed"])):
        with pytest.raises(UserError, match="--data-dir"):
            wanted()


def test_latents_are_decoded_and_their_pixels_come_from_the_folder(imagenet):
    images = Pictures(prepared(imagenet), torch.device("cpu"), imagenet)
    z = images.train_batch(torch.arange(5))["signed"]
    decoded = images.decode(z.double())
    assert decoded.shape == (5, 3, 16, 16) and decoded.dtype == torch.uint8 and decoded.device.type == "cpu"
    expected = (images._vae._network.decode(z / 0.5).sample + 1) * 127.5
    assert (decoded - expected.clamp(0, 255)).abs().max() < 0.51
    for split, name, sizes in (("train", "train", [2, 2, 1]), ("test", "val", [2, 1])):
        batches = list(images.pixels(split, 2))
        assert [len(batch) for batch in batches] == sizes
        files = listing(imagenet / "imagenet" / name).files
        expected = np.stack([crop(imagenet / "imagenet" / name / file, 16) for file in files])
        np.testing.assert_array_equal(torch.cat(batches).numpy(), expected)


def test_encode_and_prepare_by_hand(imagenet, monkeypatch):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["diffusionblocks", *map(str, words), "--data-dir", str(imagenet)])
        main()

    text = imagenet / "source.json"
    text.write_text(json.dumps(section()))
    files = [imagenet / f"{shard}.safetensors" for shard in range(2)]
    for shard, file in enumerate(files):
        command("encode", text, shard, "-o", file)
    command("prepare", text, "-o", imagenet / "by_hand.safetensors", "--shards", *files)
    assert (imagenet / "by_hand.safetensors").read_bytes() == prepared(imagenet).read_bytes()
    (imagenet / "digits.json").write_text('{"name": "digits"}')
    command("prepare", imagenet / "digits.json", "-o", imagenet / "digits.safetensors", "--shards")  # as the rule does
    assert header(imagenet / "digits.safetensors")["title"] == "scikit-learn digits"


@pytest.mark.slow
def test_the_workflow_encodes_in_as_many_jobs_as_shards(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    data = {"name": "imagenet", "shards": 3}
    checkout.configure({"tables": {"table1": {"demo": {"data": data, "train": {"augment": []}}}}})
    path = f"results/demo/data/{section_name(data)}"
    assert checkout.planned(f"{path}.safetensors") == {"autoencoder": 1, "plan": 1, "encode": 3, "prepare": 1}
    assert checkout.planned(f"{path}/shard2.safetensors") == {"autoencoder": 1, "plan": 1, "encode": 1}


@pytest.mark.parametrize("content", [b"", b"<html>", None], ids=["empty", "html", "cut"])
def test_an_unreadable_image_is_named(imagenet, content):
    path = imagenet / "imagenet/train/n01/n01_1.JPEG"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(UserError) as refusal:
        encode(section(), 0, imagenet, imagenet / "shard0.safetensors")
    assert str(refusal.value).startswith(f"{path}: cannot be read as an image")
    assert not (imagenet / "shard0.safetensors").exists()


def test_another_autoencoder_is_refused(imagenet, monkeypatch):
    other = download.ARCHIVES["vae_weights"]._replace(sha256="0" * 64)
    monkeypatch.setitem(download.ARCHIVES, "vae_weights", other)
    with pytest.raises(UserError, match=r"sd-vae-ft-ema/diffusion_pytorch_model\.safetensors: corrupt"):
        encode(section(), 0, imagenet, imagenet / "shard0.safetensors")


@pytest.mark.parametrize(
    ("wanted", "shard", "words"),
    [
        (section(), 2, "shards 0 to 1"),
        (section(image_size=17), 0, "image_size 17 is not a multiple of 2"),
        ({"name": "digits"}, 0, "'digits' is not encoded as latents"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(imagenet, wanted, shard, words):
    with pytest.raises(UserError, match=words):
        encode(wanted, shard, imagenet, imagenet / "shard.safetensors")


def test_shards_that_do_not_make_the_whole_are_refused(imagenet):
    prepared(imagenet, 3)
    first, second, third = (imagenet / f"shards3/shard{shard}.safetensors" for shard in range(3))
    absent = imagenet / "absent.safetensors"
    for files, words in [
        ([first, absent, third], f"{absent}: absent.*Delete it and run encode again"),
        ([first, second], "3 of 5 images are in the shards given.*shards 0 to 2"),
        ([], "0 of 5 images are in the shards given"),
        ([first, third], f"{third}: starts with image 3, and 1 is next"),
        ([second, first, third], f"{second}: starts with image 1, and 0 is next"),
    ]:
        with pytest.raises(UserError, match=words):
            prepare(section(3), imagenet, imagenet / "prepared.safetensors", files)
    (imagenet / "imagenet/train/n02/n02_0.JPEG").unlink()
    with pytest.raises(UserError, match=r"another state of .*imagenet/train"):
        prepare(section(3), imagenet, imagenet / "prepared.safetensors", [first, second, third])
    assert not (imagenet / "prepared.safetensors").exists()


# Downloads

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under every name.

    ranges: whether it understands Range. cut: answers that end half way. served: the bytes it sent, answer by answer.
    """

    daemon_threads = True

    def __init__(self, content=CONTENT, ranges=True, cut=0, chunked=False, status=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cut, self.chunked, self.status = content, ranges, cut, chunked, status
        self.served, self.asked = [], []
        self.gate = threading.Event()  # answers wait until it is set
        self.gate.set()

    def archive(self, content=CONTENT):
        return Archive(
            f"http://127.0.0.1:{self.server_port}/set.tar.gz", len(content), hashlib.sha256(content).hexdigest()
        )

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # the library's name
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        server.gate.wait(30)
        if server.status:
            return self.send_error(server.status)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = server.cut > 0
        if cut:
            server.cut -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        server.served.append(len(body))
        if server.chunked:
            self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
            if not cut:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses between two attempts, noted and not taken."""
    taken = []
    monkeypatch.setattr(download.time, "sleep", taken.append)
    return taken


def test_download_once_and_never_again(tmp_path):
    with Server() as server:
        path = fetch(server.archive(), tmp_path / "new")
        assert path == tmp_path / "new/set.tar.gz" and path.read_bytes() == CONTENT
        assert fetch(server.archive(), tmp_path / "new") == path
        assert server.served == [300_000] and server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["set.tar.gz"]


def two_downloads(server, archive, folder):
    """(exit code, output, errors) of two processes that want the same file, the second while the first downloads it."""
    program = (
        "import sys; from diffusionblocks.data.download import Archive, fetch; print('ready', flush=True);"
        "print(fetch(Archive(sys.argv[1], int(sys.argv[2]), sys.argv[3]), sys.argv[4]))"
    )
    command = [sys.executable, "-c", program, *map(str, archive), str(folder)]
    server.gate.clear()
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    threading.Event().wait(0.5)  # now both have asked, if both do
    server.gate.set()
    outputs = [process.communicate(timeout=60) for process in both]
    return [(process.returncode, *output) for process, output in zip(both, outputs, strict=True)]


def test_two_processes_download_one_file_once(tmp_path):
    with Server() as server:
        both = two_downloads(server, server.archive(), tmp_path)
        assert both == [(0, f"{tmp_path / 'set.tar.gz'}\n", "")] * 2
        assert server.asked == [None]
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]
    assert (tmp_path / "set.tar.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("server", "word"), [({"status": 404}, "cannot be downloaded"), ({"content": CONTENT[:-1] + b"!"}, "corrupt")]
)
def test_who_waited_for_a_failed_download_tries_too(tmp_path, server, word):
    with Server(**server) as server:
        both = two_downloads(server, server.archive(CONTENT), tmp_path)
        assert [code for code, _, _ in both] == [1, 1] and all(word in errors for _, _, errors in both)
        assert server.asked == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_download_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT[:210_000])
    with Server() as server:
        assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT
        assert server.asked == ["bytes=210000-"] and server.served == [90_000]
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]


def test_complete_partial_needs_no_server(tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    with Server() as server:
        assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT
        assert server.asked == []


@pytest.mark.parametrize("chunked", [False, True])
def test_server_that_closes_half_way(tmp_path, pauses, chunked):
    with Server(cut=2, chunked=chunked) as server:
        assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT
        if not chunked:
            assert server.served == [150_000, 75_000, 75_000]
            assert server.asked == [None, "bytes=150000-", "bytes=225000-"]
    assert pauses == [1, 2]


def test_server_without_ranges_starts_over(tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(b"?" * 100_000)
    with Server(ranges=False) as server:
        assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT
        assert server.served == [300_000]


def test_server_that_always_closes_is_given_up_and_the_partial_kept(tmp_path, pauses):
    with Server(cut=100) as server, pytest.raises(UserError, match="cannot be downloaded") as refusal:
        fetch(server.archive(), tmp_path)
    partial = tmp_path / "set.tar.gz.part"
    assert len(server.served) == 5 and len(pauses) == 4
    assert partial.read_bytes() == CONTENT[: sum(server.served)]
    assert str(partial) in str(refusal.value) and "of 300,000 bytes" in str(refusal.value)


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 5)])
def test_a_refusal_is_final_and_a_busy_server_is_asked_again(tmp_path, status, attempts):
    with Server(status=status) as server, pytest.raises(UserError, match=str(status)):
        fetch(server.archive(), tmp_path)
    assert len(server.asked) == attempts


@pytest.mark.parametrize("partial", [b"", CONTENT[:1000]])
def test_offline_names_url_and_data_dir(tmp_path, partial):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.tar.gz"
        if partial:
            (tmp_path / "set.tar.gz.part").write_bytes(partial)
        with pytest.raises(UserError, match="cannot be downloaded") as refusal:
            fetch(Archive(url, len(CONTENT), SHA256), tmp_path)
    for word in (url, str(tmp_path), "data_dir", "config.yaml"):
        assert word in str(refusal.value)
    assert not (tmp_path / "set.tar.gz").exists()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([partial] if partial else [])


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (CONTENT[:-1], "truncated: 299,999 bytes instead of 300,000"),
        (CONTENT + b"!", "not the right file"),
        (CONTENT[:-1] + b"!", f"corrupt: sha256 {hashlib.sha256(CONTENT[:-1] + b'!').hexdigest()} instead of {SHA256}"),
    ],
    ids=["truncated", "too long", "corrupt"],
)
def test_a_bad_file_in_data_dir_is_refused_and_left_alone(tmp_path, content, word):
    path = tmp_path / "set.tar.gz"
    path.write_bytes(content)
    with Server() as server, pytest.raises(UserError, match="Delete it and start again") as refusal:
        fetch(server.archive(), tmp_path)
    assert f"{path}: {word}" in str(refusal.value)
    assert server.asked == [] and path.read_bytes() == content, "it may be the user's only copy of something"


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT + b"!"], ids=["wrong bytes", "too long"])
def test_a_wrong_download_is_removed(tmp_path, content):
    with Server(content) as server:
        with pytest.raises(UserError, match=r"corrupt|not the right file"):
            fetch(server.archive(CONTENT), tmp_path)
        assert list(tmp_path.iterdir()) == []
        server.content = CONTENT
        assert fetch(server.archive(), tmp_path).read_bytes() == CONTENT


def test_archives_are_known_by_https_size_and_sha256():
    for archive in download.ARCHIVES.values():
        assert archive.url.startswith("https://") and archive.size > 500 and len(archive.sha256) == 64


def test_reading_many_images_holds_few_files_open(imagenet):
    """An image sent by a worker on its own would hold a file open, and a batch of ImageNet 500 of them.

    Nor do they pass through /dev/shm, of which a container has little: the limit on files holds there, too.
    """
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48));"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000));"
        "from diffusionblocks.data.images.latents import batches;"
        "print(sum(len(batch) for batch in batches([sys.argv[1]] * 200, 16, 100)))"
    )
    image = next((imagenet / "imagenet/train").rglob("*.JPEG"))
    done = subprocess.run([sys.executable, "-c", code, str(image)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["200"], done.stderr[-500:]
