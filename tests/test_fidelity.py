"""FID, KID, precision and recall: closed forms, and torch-fidelity's own numbers on two folders of images."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation.metrics import generation as metrics
from diffusionblocks.scorers import fidelity
from diffusionblocks.scorers.extractor import extract, extractor, load_extractor
from diffusionblocks.scorers.fidelity import Statistics
from diffusionblocks.scorers.reference import reference

CPU = torch.device("cpu")


def sample_of(mu, sigma, n=200):
    """n points whose mean and covariance (n - 1) are exactly these."""
    x = np.random.default_rng(0).normal(size=(n, len(mu)))
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x, rowvar=False)), (x - x.mean(0)).T).T
    return x @ np.linalg.cholesky(np.array(sigma, float)).T + mu


def gaussian(mu, sigma):
    return {"mu": np.array(mu, float), "sigma": np.array(sigma, float)}


# Closed forms


def test_fid_of_diagonal_gaussians():
    """Squared distance of the means plus squared differences of the standard deviations."""
    found = fidelity.fid(sample_of([1, 2, 3], np.diag([1, 4, 9])), gaussian([1, 0, 4], np.diag([16, 4, 1])))
    assert found == pytest.approx((0 + 4 + 1) + (9 + 0 + 4))


def test_fid_of_full_gaussians():
    """In two dimensions tr sqrt(A B) = sqrt(tr(A B) + 2 sqrt(det A det B)); these two do not commute."""
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    assert not np.allclose(a @ b, b @ a)
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    assert fidelity.fid(sample_of([0, 0], a), gaussian([3, -1], b)) == pytest.approx(10 + 5 + 6 - 2 * root)


def test_fid_of_the_same_features_is_zero():
    x = sample_of([1, 2], [[2, 1], [1, 3]])
    statistics = Statistics(len(x))
    statistics.add(torch.from_numpy(x))
    assert fidelity.fid(x, statistics.tensors()) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_of_clusters():
    """Real images in four clusters; generated ones in two of these, and one in nine of them elsewhere."""
    generator = torch.Generator().manual_seed(0)
    corners = 100 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    cluster = torch.randn(20, 2, generator=generator).clamp(-1, 1)
    real = torch.cat([corner + cluster for corner in corners])
    generated = torch.cat([corners[0] + cluster, corners[1] + cluster, 1000 + torch.arange(10.0).view(5, 2)])
    precision, recall = fidelity.precision_recall(generated, {"features": real})
    assert (precision, recall) == pytest.approx((40 / 45, 0.5))
    assert metrics.precision([generated], {"test": {"features": real}}) == pytest.approx(100 * 40 / 45)
    assert metrics.recall([generated], {"test": {"features": real}}) == pytest.approx(50)


def test_kid_tells_sets_apart():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1100, 8, generator=generator)
    assert abs(fidelity.kid(x, {"features": y})) < 5  # in thousandths
    assert fidelity.kid(x[:30], {"features": y[:40] + 1}) > 300  # fewer than the subsets' usual 1000


# Statistics


def test_statistics_batch_by_batch_are_numpys():
    x = 5 + torch.randn(1001, 7, generator=torch.Generator().manual_seed(0)) @ torch.randn(7, 7)
    statistics = Statistics(1001)
    for batch in x.split(100):
        statistics.add(batch)
    found, wide = statistics.tensors(), x.double().numpy()
    assert found["mu"].dtype == found["sigma"].dtype == torch.float64 and statistics.count == 1001
    np.testing.assert_allclose(found["mu"].numpy(), wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["sigma"].numpy(), np.cov(wide, rowvar=False), rtol=1e-10, atol=1e-11)
    assert torch.equal(found["features"], x)


@pytest.mark.parametrize(("n", "kept"), [(100, 100), (101, 51), (250, 84), (1000, 100), (9000, 100)])
def test_features_are_kept_evenly_up_to_a_limit(n, kept, monkeypatch):
    monkeypatch.setattr(fidelity, "MAX_FEATURES", 100)
    statistics = Statistics(n)
    for batch in torch.arange(float(n))[:, None].split(30):
        statistics.add(batch.clone())
    assert sum(part.untyped_storage().nbytes() for part in statistics.kept) == 4 * kept  # nor is more in memory
    found = statistics.tensors()["features"][:, 0]
    assert len(found) == kept and found[0] == 0 and (found.diff() == -(-n // 100)).all()


# Against torch-fidelity


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Coloured digits as a prepared data set, and test and generated images (noisy ones) as folders of PNGs."""
    root, random = tmp_path_factory.mktemp("fidelity"), np.random.default_rng(0)
    digits = load_digits()
    colours = random.uniform(0.4, 1, (len(digits.images), 3, 1, 1))
    images = (digits.images[:, None] * 255 / 16 * colours).astype(np.uint8)
    arrays = {
        "train_images": torch.from_numpy(images[:1200]),
        "train_labels": torch.from_numpy(digits.target[:1200].astype(np.int64)),
        "test_images": torch.from_numpy(images[1200:]),
        "test_labels": torch.from_numpy(digits.target[1200:].astype(np.int64)),
    }
    about = {"title": "coloured digits", "shape": {"image_size": 8, "channels": 3, "num_classes": 10}}
    about |= {"train_size": 1200, "test_size": 597, "mean": [0.0] * 3, "std": [1.0] * 3}
    tensors.write(root / "data.safetensors", arrays, about)
    noisy = images[:700] + random.normal(0, 30, (700, 3, 8, 8))
    generated = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
    for name, chosen in (("test", arrays["test_images"]), ("generated", generated)):
        (root / name).mkdir()
        for i, image in enumerate(chosen):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name / f"{i:04}.png")
    return root, generated


def test_our_way_gives_torch_fidelitys_numbers(folders):
    """Extractor, reference and features through files and functions of ours, against one call of calculate_metrics."""
    root, generated = folders
    paths = root / "data.safetensors", root, root / "extractor.safetensors"
    extractor({"name": "small_cnn", "width": 32, "steps": 300}, *paths)
    reference(root / "extractor.safetensors", *paths[:2], root / "reference.safetensors")
    network, about = load_extractor(root / "extractor.safetensors", CPU)
    ours = extract(network, generated, CPU, batch_size=64).numpy()
    found, where = tensors.read(root / "reference.safetensors", "")
    assert about["title"] == "small CNN trained on the data" and where["counts"] == {"train": 1200, "test": 597}
    references = {
        split: {key: found[f"{split}_{key}"].numpy() for key in ("mu", "sigma", "features")}
        for split in ("train", "test")
    }

    package = fidelity.torch_fidelity()

    class Registered(package.FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)
            self.network = network

        @staticmethod
        def get_provided_features_list():
            return ("ours",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "ours"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, images):
            return (self.network(images),)

    package.register_feature_extractor("small", Registered)
    theirs = package.calculate_metrics(
        input1=str(root / "generated"), input2=str(root / "test"), feature_extractor="small", cuda=False, verbose=False,
        fid=True, kid=True, prc=True, kid_subset_size=597, save_cpu_ram=True, cache=False,
    )  # fmt: skip
    assert metrics.fid([ours], references) == pytest.approx(theirs["frechet_inception_distance"], abs=1e-3)
    assert metrics.kid([ours], references) == pytest.approx(1000 * theirs["kernel_inception_distance_mean"], abs=1e-3)
    assert metrics.precision([ours], references) == pytest.approx(100 * theirs["precision"], abs=0.2)
    assert metrics.recall([ours], references) == pytest.approx(100 * theirs["recall"], abs=0.2)
    assert 0 < theirs["recall"] < 1 and 0 < theirs["precision"] < 1 and theirs["frechet_inception_distance"] > 1
    # And the training images are another reference.
    assert abs(metrics.fid([ours], references, reference="train") - metrics.fid([ours], references)) > 0.1


def test_fewer_images_than_neighbours_are_refused():
    reference = {"features": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)}
    assert 0 <= fidelity.precision_recall(reference["features"], reference)[0] <= 1
    with pytest.raises(UserError, match="3 neighbours of each image, and there are 3 generated and 4 real ones"):
        fidelity.precision_recall(reference["features"][:3], reference)
    with pytest.raises(UserError, match="4 generated and 3 real ones"):
        fidelity.precision_recall(reference["features"], {"features": reference["features"][:3]})


@pytest.mark.parametrize(
    ("count", "words"), [(1, "has 1 test image, and FID needs two"), (3, "the same features of all 3")]
)
def test_a_reference_that_tells_nothing_is_refused(tmp_path, monkeypatch, count, words):
    class Few:
        title, train_size, test_size = "few", 4, count

        def __init__(self, *_):
            pass

        def pixels(self, split):
            size = 4 if split == "train" else count
            yield (
                torch.zeros(size, 1, 4, 4, dtype=torch.uint8)
                + (torch.arange(size) * (split == "train"))[:, None, None, None]
            )

    module = "diffusionblocks.scorers.reference"
    monkeypatch.setattr(f"{module}.Pictures", Few)
    network = lambda images: images.flatten(1)[:, :2].float()  # noqa: E731
    monkeypatch.setattr(f"{module}.load_extractor", lambda *_: (network, {"title": "two pixels"}))
    with pytest.raises(UserError, match=words):
        reference("weights", "data", None, tmp_path / "reference.safetensors")
    assert not list(tmp_path.iterdir())
