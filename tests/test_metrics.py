"""Metrics on arrays made by hand, and what the predictions on a test set are gathered into."""

import sys

import numpy as np
import pytest
import torch

from diffusionblocks.base.components import names
from diffusionblocks.base.files import UserError
from diffusionblocks.diffusion.chains import Step
from diffusionblocks.evaluation import images as evaluate_images
from diffusionblocks.evaluation.inputs import INPUTS, source_of
from diffusionblocks.evaluation.metric import load_metric, metric
from diffusionblocks.evaluation.metrics.classification import accuracy, accuracy_per_step, top_5_accuracy
from diffusionblocks.evaluation.metrics.cost import layer_evaluations, relative_speed
from diffusionblocks.evaluation.metrics.generation import fid, kid

LABELS = np.array([0, 1, 2, 2])
LOGITS = np.array([[1, 0, 0], [-3, -1, -2], [0, 0, 1], [0, 1, 0]], dtype=np.float32)  # 3 of 4


def test_accuracy_is_the_share_of_the_largest_logits_in_percent():
    assert accuracy(LOGITS, LABELS) == 75.0
    assert accuracy(LOGITS[:3], LABELS[:3]) == 100.0
    assert accuracy(LOGITS[1:], LABELS[[2, 0, 1]]) == pytest.approx(100 / 3)
    assert isinstance(accuracy(LOGITS, LABELS), float)  # json does not know numpy's


def test_top_5_accuracy_is_the_share_of_the_five_largest_logits_in_percent():
    logits = np.array([[0.1, 9, -3, 4, 8, -1, 7], [0.1, 9, -3, 4, 8, -1, 7], [-1, -2, -3, -4, -5, -6, -7]], np.float32)
    hits = {(0, 0, 4): 100, (5, 1, 5): 100 / 3, (2, 5, 6): 0, (3, 2, 0): 200 / 3, (6, 4, 3): 100}
    for labels, expected in hits.items():
        assert top_5_accuracy(logits, np.array(labels)) == pytest.approx(expected)
    assert top_5_accuracy(LOGITS, LABELS) == 100.0  # of three classes all
    assert isinstance(top_5_accuracy(logits, np.array([0, 0, 4])), float)


def test_accuracy_per_step():
    for kind in (bool, np.float32):
        correct = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1]], kind)
        found = accuracy_per_step(correct)
        assert found == pytest.approx([25.0, 100.0, 75.0])
        assert all(type(value) is float for value in found)


class Data:
    """Seven images, each a number, of the classes 0, 1, 2, 0, ..."""

    test_size = 7

    def test_batches(self, batch_size):
        numbers = torch.arange(7)
        for part in numbers.split(batch_size):
            yield {"image": part.float().view(-1, 1, 1, 1), "label": part % 3}


class Chain:
    """Two steps: the first says class 0, the second the image's number over three classes, and what else was drawn."""

    z_shape = (4,)

    def predict(self, batch, eps, offset=0):
        number = batch["image"].flatten()
        first = torch.tensor([1.0, 0.0, 0.0]).expand(len(number), -1).bfloat16()
        last = torch.stack([offset + number, eps.sum(1), torch.rand(len(number))], dim=1)
        return [Step(80.0, 0, first), Step(0.5, 1, last)]


def test_predictions_of_all_batches_are_gathered_with_the_last_step_s_logits(monkeypatch):
    monkeypatch.setattr(evaluate_images, "BATCH", 3)
    steps, found = evaluate_images._predict(Chain(), Data(), 0, {"offset": -3})
    assert steps == [(80.0, 0), (0.5, 1)]
    assert found.keys() == {"logits", "labels", "correct"}
    assert found["logits"].shape == (7, 3) and found["logits"].dtype == np.float32
    assert found["logits"][:, 0].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert found["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    first, last = found["correct"].tolist()
    assert first == [True, False, False, True, False, False, True]
    assert last == (found["logits"].argmax(1) == found["labels"]).tolist() != first
    assert accuracy_per_step(found["correct"])[-1] == accuracy(found["logits"], found["labels"])


def test_noise_of_an_image_depends_on_the_seed_and_on_the_image_alone(monkeypatch):
    def gathered(seed, batch_size):
        monkeypatch.setattr(evaluate_images, "BATCH", batch_size)
        torch.rand(batch_size)  # whatever was drawn before
        return evaluate_images._predict(Chain(), Data(), seed, {})[1]["logits"]

    whole, split, other = gathered(0, 500), gathered(0, 3), gathered(1, 500)
    assert np.array_equal(whole[:, 1], split[:, 1]) and len(set(whole[:, 1])) == 7
    assert not (whole[:, 1:] == other[:, 1:]).any()
    assert np.array_equal(gathered(0, 500), whole)  # what is drawn on the way included


def test_a_method_without_noise_is_given_none():
    class Plain(Chain):
        z_shape = None

        def predict(self, batch, eps):
            assert eps is None
            return [Step(None, None, 5 * torch.eye(3)[batch["label"]])]

    steps, found = evaluate_images._predict(Plain(), Data(), 0, {})
    assert steps == [(None, None)] and found["correct"].all() and found["correct"].shape == (1, 7)


def test_metrics_of_predictions_share_one_pass():
    class Counted(Chain, torch.nn.Module):
        blocks, asked = [0, 1, 2], 0

        def predict(self, *arguments, **sampling):
            self.asked += 1
            return super().predict(*arguments, **sampling)

    method = Counted()
    inputs = evaluate_images.Inputs({"seed": 0}, method, Data(), torch.device("cpu"), (), ())
    found, about, steps = inputs.of({"name": "accuracy"}, ["logits", "labels"])
    assert about == {"samples": 7, "idle_blocks": [2]} and steps == [(80.0, 0), (0.5, 1)]
    for needed in (["correct"], ["labels"]):
        assert inputs.of({"name": "another"}, needed)[0] is found
    assert method.asked == 1
    other, *_ = inputs.of({"name": "accuracy", "sampling": {"offset": 10}}, ["correct"])
    assert method.asked == 2 and (other["logits"][:, 0] == found["logits"][:, 0] + 10).all()


REFERENCES = {
    "test": {"mu": np.zeros(2), "sigma": np.eye(2), "features": np.zeros((4, 2), np.float32)},
    "train": {"mu": np.ones(2), "sigma": np.eye(2), "features": np.ones((4, 2), np.float32)},
}
# Means (1, 0) and (3, 0), covariances the identity.
SETS = [np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) * np.sqrt(1.5) + [x, 0] for x in (1, 3)]


def test_fid_is_the_least_of_the_sets():
    assert fid(SETS, REFERENCES) == pytest.approx(1)
    assert fid(SETS[1:], REFERENCES) == pytest.approx(9)
    assert fid(SETS[1:], REFERENCES, reference="train") == pytest.approx(4 + 1)


def test_kid_is_the_mean_of_the_sets():
    # Of points x and y that are all the same, with the kernel k(x, y) = (x.y / 2 + 1)^3: k(x, x) + k(y, y) - 2 k(x, y).
    at = [np.full((4, 2), value, np.float32) for value in (1, 2)]
    assert kid(at[:1], REFERENCES) == pytest.approx(1000 * (8 + 1 - 2))
    assert kid(at[1:], REFERENCES) == pytest.approx(1000 * (125 + 1 - 2))
    assert kid(at, REFERENCES) == pytest.approx(1000 * (7 + 124) / 2)
    assert kid(at[1:], REFERENCES, reference="train") == pytest.approx(1000 * (125 + 8 - 2 * 27))


def test_evaluations_of_a_third_of_the_layers():
    assert layer_evaluations({"layers": 200, "networks": 50, "num_layers": 12}) == 200
    assert relative_speed({"layers": 200, "networks": 50, "num_layers": 12}) == 3
    assert relative_speed({"layers": 600, "networks": 50, "num_layers": 12}) == 1


# What a metric says of itself


def test_every_metric_is_declared_and_asks_for_what_there_is():
    for name in names("metric"):
        found = [load_metric(name, kind) for kind in ("images", "text") if _fits(name, kind)]
        assert found and all(each.about.better in ("higher", "lower", None) for each in found), name
        assert all((each.about.figure is not None) == (name.endswith(("_per_step", "_by_level"))) for each in found)
    assert load_metric("accuracy", "images").about.unit == "%"


def _fits(name, kind):
    try:
        load_metric(name, kind)
    except UserError as error:
        assert f"and of {kind} there are:" in str(error)
        return False
    return True


def test_a_metric_of_other_data_is_refused():
    with pytest.raises(
        UserError, match=r"classification\.py: metric accuracy: needs logits, labels, and of text there"
    ):
        load_metric("accuracy", "text")
    with pytest.raises(UserError, match="metric 'acuracy': there is none"):
        load_metric("acuracy", "images")


def test_inputs_come_from_one_source():
    assert source_of(["logits", "labels"], "images") == "predict"
    assert source_of(["texts", "text_nll"], "text") == source_of(["features"], "images") == "samples"
    assert source_of(["update_cost", "training"], "text") == "network" and source_of(["training"], "text") == "logs"
    with pytest.raises(ValueError, match=r"of predict and samples$"):
        source_of(["losses", "texts"], "text")
    assert {source for _, source in INPUTS.values()} == {
        *("predict", "bound", "samples", "teacher", "network", "logs", "count"),
    }


def own(labels):
    """No metric yet."""


def test_a_declaration_is_one_of_the_words():
    for key, value in {"better": "up", "figure": "pie", "over_sets": "most"}.items():
        with pytest.raises(UserError, match=rf"test_metrics\.py: metric own: {key} '{value}' is not one of "):
            metric(**{key: value})(own)
    with pytest.raises(UserError, match=r"metric own: least: sample is none of samples, references, tokens"):
        metric(least={"sample": 3})(own)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A function that writes a user's own metric `mine`, and gives what evaluation makes of it."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(body, declared="@metric(unit='m', better='lower')", arguments="labels, *, factor=1"):
        monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
        text = "import math\nimport numpy as np\nfrom diffusionblocks.evaluation.metric import metric\n\n"
        (tmp_path / "my_metrics.py").write_text(f"{text}{declared}\ndef mine({arguments}):\n    return {body}\n")
        sys.path_importer_cache.clear()
        return load_metric("my_metrics.mine", "images")

    return written


def test_a_users_own_metric(mine, tmp_path):
    found = mine("factor * float(np.mean(labels))")
    assert found({"labels": LABELS, "logits": LOGITS}, {"factor": 4}, 3) == 5.0
    assert (found.about.unit, found.about.better, found.about.beside, found.about.figure) == ("m", "lower", False, None)
    assert found.inputs == ["labels"] and found.file == tmp_path / "my_metrics.py"


CURVE = "@metric(better='higher', figure='loss_chain')"


@pytest.mark.parametrize(
    ("body", "declared", "words"),
    [
        ("math.nan", "@metric()", "returned nan: look at what it is computed from (labels)"),
        ("math.inf", "@metric(better='lower')", "returned inf"),
        ("-math.inf", "@metric(better='lower', infinite=True)", "returned -inf"),
        ("np.float32(1)", "@metric()", "(float32), and should return a plain number"),
        ("True", "@metric()", "returned True (bool)"),
        ("None", "@metric()", "returned None (NoneType)"),
        ("[1.0, 2.0]", "@metric()", "returned [1.0, 2.0] (list), and should return a plain number"),
        ("1.0", CURVE, "returned 1.0, and a curve is a list with a number for each of the 2 steps"),
        ("[1.0]", CURVE, "returned a list of 1, and a curve"),
        ("[1.0, math.nan]", CURVE, "returned nan"),
    ],
)
def test_a_value_that_is_no_finite_number_names_the_metrics_file(mine, tmp_path, body, declared, words):
    found = mine(body, declared)
    with pytest.raises(UserError) as refusal:
        found({"labels": LABELS}, {}, 2)
    assert str(refusal.value).startswith(f"{tmp_path / 'my_metrics.py'}: metric my_metrics.mine ")
    assert words in str(refusal.value)


def test_what_may_be_infinite_says_so(mine):
    assert mine("math.inf", "@metric(better='lower', infinite=True)")({"labels": LABELS}, {}, 0) == np.inf


def test_a_function_that_is_no_metric_is_refused(mine):
    with pytest.raises(UserError, match=r"my_metrics\.py: my_metrics\.mine is no metric: put `@metric"):
        mine("1.0", "")
    with pytest.raises(UserError, match=r"metric my_metrics\.mine: needs weights, and of images there are: logits"):
        mine("1.0", arguments="weights")
    with pytest.raises(UserError, match=r"my_metrics\.py: metric mine: rename its keyword samples, teacher, value,"):
        mine("1.0", arguments="labels, *, value=1, teacher=2, samples=3, threshold=4")
    with pytest.raises(UserError, match=r"labels, features do not come together"):
        mine("1.0", arguments="labels, features")
