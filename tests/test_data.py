"""Data sets from their files to batches, and downloads from a real server on this machine."""

import gzip
import hashlib
import http.server
import io
import json
import socket
import tarfile
import threading

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from diffusionblocks.data import download, sources
from diffusionblocks.data.download import Archive, fetch
from diffusionblocks.data.images import Images
from diffusionblocks.data.prepare import prepare
from diffusionblocks.files import UserError


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
    first, again = (sources.digits("nowhere", split="validation")["test_labels"] for _ in range(2))
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
    monkeypatch.setattr(sources, "FASHION_MNIST", counts)
    random = np.random.default_rng(0)
    arrays = {}
    for name, count in counts.items():
        arrays[name] = random.integers(1, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[name], strict=True):
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path, arrays


def test_fashion_mnist_is_padded_on_all_sides(fashion):
    folder, arrays = fashion
    found = sources.fashion_mnist(folder)
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
        (lambda content: b"<html>not found</html>", "corrupt"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "truncated"),
        (lambda content: gzip.compress(b"short"), "not an IDX file"),
        (lambda content: gzip.compress(b""), "not an IDX file"),
        (lambda content: gzip.compress(idx(np.zeros((20, 28), np.uint8))), "not an IDX file"),
        (lambda content: gzip.compress(idx(np.zeros((21, 28, 28), np.uint8))), "shape (20, 28, 28)"),
    ],
    ids=["cut", "html", "cut inside", "short", "empty", "dimensions", "sizes"],
)
def test_fashion_mnist_refuses_a_damaged_file(fashion, damage, word):
    folder, _ = fashion
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="Fetch it again") as refusal:
        sources.fashion_mnist(folder)
    assert str(path) in str(refusal.value) and word in str(refusal.value)


def test_absent_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FASHION_MNIST", {"another-name": 1})  # not in Debian's folder either
    with pytest.raises(UserError, match=r"dataset-fashion-mnist.*data_dir") as refusal:
        sources.fashion_mnist(tmp_path)
    assert str(tmp_path) in str(refusal.value)


# CIFAR-100


def cifar_records(count):
    """Images whose planes are 10, 20 and 30 plus the image's number, row by row darker; fine labels 0, 1, 2, ..."""
    records = np.zeros((count, 3074), np.uint8)
    records[:, 0] = 77  # the coarse label, which nobody wants
    records[:, 1] = np.arange(count)
    planes = records[:, 2:].reshape(count, 3, 32, 32)
    planes += np.array([10, 20, 30], np.uint8)[:, None, None] + np.arange(count, dtype=np.uint8)[:, None, None, None]
    planes += 3 * np.arange(32, dtype=np.uint8)[:, None]
    return records


def cifar_archive(folder, monkeypatch, change=lambda member, content: (member, content)):
    """CIFAR-100's archive with 6 and 4 images, known to the workflow by its size and hash."""
    path = folder / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, count in (("train.bin", 6), ("test.bin", 4)):
            content = cifar_records(count).tobytes()
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            member, content = change(member, content)
            archive.addfile(member, io.BytesIO(content) if content else None)
    content = path.read_bytes()
    known = Archive("http://127.0.0.1:9/cifar-100-binary.tar.gz", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(download.ARCHIVES, "cifar100", known)
    monkeypatch.setattr(sources, "CIFAR100", {"train.bin": 6, "test.bin": 4})
    return path


def test_cifar100_has_fine_labels_and_colour_planes_in_order(tmp_path, monkeypatch):
    cifar_archive(tmp_path, monkeypatch)
    found = sources.cifar100(tmp_path)
    assert found["title"] == "CIFAR-100"
    assert found["train_images"].shape == (6, 3, 32, 32) and found["test_images"].shape == (4, 3, 32, 32)
    assert found["train_labels"].tolist() == [0, 1, 2, 3, 4, 5] and found["test_labels"].tolist() == [0, 1, 2, 3]
    assert found["train_images"][4, :, 0, 7].tolist() == [14, 24, 34]
    assert found["train_images"][4, 1, :3, 0].tolist() == [24, 27, 30], "rows are rows"
    prepare({"name": "cifar100"}, tmp_path, tmp_path / "prepared.safetensors")
    about = header(tmp_path / "prepared.safetensors")
    assert about["mean"] == pytest.approx([(10 * c + 2.5 + 46.5) / 255 for c in (1, 2, 3)], abs=1e-4)
    assert len(about["std"]) == 3


def link(member, content):
    member.type, member.linkname = tarfile.SYMTYPE, "other.bin"  # with a size of its own, which tar allows
    return member, b""


def hard_link(member, content):
    member.type, member.linkname = tarfile.LNKTYPE, "cifar-100-binary/other.bin"
    return member, b""


def cut(member, content):
    member.size -= 1
    return member, content[:-1]


def renamed(member, content):
    member.name = "../" + member.name
    return member, content


@pytest.mark.parametrize("change", [link, hard_link, cut, renamed])
def test_cifar100_takes_only_regular_files_of_the_right_size(tmp_path, monkeypatch, change):
    path = cifar_archive(tmp_path, monkeypatch, change)
    with pytest.raises(UserError, match=r"no regular file cifar-100-binary/train\.bin of 18,444 bytes") as refusal:
        sources.cifar100(tmp_path)
    assert str(path) in str(refusal.value)


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
    return Images(tmp_path / "colours.safetensors", torch.device("cpu")), arrays


def test_training_batches_are_the_chosen_images_normalised_by_channel(colours):
    images, arrays = colours
    batch = images.train_batch(torch.tensor([3, 0]))
    assert batch["label"].tolist() == [3, 0] and batch["image"].dtype == torch.float32
    expected = arrays["train_images"][[3, 0]] / 255 - np.array([0.5, 0.1, 0.4])[:, None, None]
    expected /= np.array([0.3, 0.1, 0.2])[:, None, None]
    np.testing.assert_allclose(batch["image"].numpy(), expected, atol=1e-5)


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
        assert archive.url.startswith("https://") and archive.size > 10**6 and len(archive.sha256) == 64
