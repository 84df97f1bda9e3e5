"""`try`: each fault of a user's own function gets one message that names file, function and cure."""

import pytest
from users import DATA, EXTRACTOR, GRID, METRIC, PARTITION, SOLVER, TEACHER, TEXTS, edited, refusal

from diffusionblocks.evaluation.trial import trial

# Metrics


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([("return float(", "return float('nan') * float(")], "metric {name} returned nan"),
        ([("return float(", "return np.float32(")], "should return a plain number"),
        ([("return float(", "return torch.tensor(")], "should return a plain number"),
        ([("return float(", "return bool(")], "should return a plain number"),
        ([("return float(100 * np.mean(logits.argmax(1) == labels))", "return [1.0]")], "should return a plain number"),
        (
            [('better="higher"', 'better="higher", figure="accuracy_chain"')],
            "a curve is a list with a number for each of",
        ),
        ([("mine(logits, labels)", "mine(logit, labels)"), ("logits.argmax", "logit.argmax")], "needs logit, and of"),
        ([("mine(logits, labels)", "mine(logits, text_nll)"), ("== labels", "== text_nll")], "needs text_nll, and of"),
        (
            [("logits.argmax(1) == labels", "logits.argmax(1) == 3")],
            "metric {name} gives the same whatever its labels are",
        ),
        ([("logits.argmax(1) == labels", "labels == 3")], "metric {name} gives the same whatever its logits are"),
        ([("logits.argmax(1)", "logits.argmax(7)")], "line 10: metric {name} cannot be computed from random logits, "),
    ],
)
def test_a_metrics_faults(own, edits, words):
    name = f"{own(edited(METRIC, *edits))}.mine"
    message = refusal(name)
    assert message.startswith(own.file) and words.format(name=name) in message, message


def test_a_function_that_is_declared_as_no_metric(own):
    name = own(edited(METRIC, ('@metric(unit="%", better="higher")', ""))) + ".mine"
    assert "nothing says what kind of component mine is" in refusal(name)
    assert "is no metric: put `@metric" in refusal(name, "metric")


# Data


DATA_FAULTS = [
    (edited(DATA, ("8, 8), np.uint8)", "8, 8))")), "`train_images` should be uint8 (N, C, S, S), and is float64"),
    (edited(DATA, ("8, 8), np.uint8)", "8, 9), np.uint8)")), "`train_images` should be uint8 (N, C, S, S)"),
    (edited(DATA, ("np.arange(10)", "np.arange(10.0)")), "`train_labels` should be int64 (10,)"),
    (edited(DATA, ("np.arange(10)", "np.arange(9)")), "`train_labels` should be int64 (10,)"),
    (edited(DATA, ('"test_labels": labels}', '"test_labels": labels + 1}')), "labels should lie between 0"),
    (edited(DATA, ('"title": "mine", ', "")), "instead of a dict of"),
    (edited(DATA, ("images + 1", "images")), "every test image is among the training images"),
    (
        edited(
            DATA,
            ("(data_dir)", '(data_dir, *, split: Literal["test", "validation"] = "test")'),
            ("import numpy as np", "from typing import Literal\n\nimport numpy as np"),
        ),
        "data source {name} gives the same test set for each `split`",
    ),
    (
        edited(
            TEXTS,
            ("(data_dir)", '(data_dir, *, split: Literal["test", "validation"] = "test")'),
            (
                "from diffusionblocks.data.text.source",
                "from typing import Literal\n\nfrom diffusionblocks.data.text.source",
            ),
        ),
        "data source {name} gives the same test set for each `split`",
    ),
    (edited(DATA, ("np.zeros(", "np.zeroes(")), "line 8: data source {name} called with data_dir '"),
    (edited(TEXTS, ('[("train", "a text of letters "), ("test", "another ")]', '["a", "b"]')), "should give pairs"),
    (
        edited(TEXTS, ('("train", "a', '("trian", "a')),
        "gives a text of split 'trian', and there are train, test and",
    ),
    (edited(TEXTS, ('"""Characters."""', "vocab_size = 5")), "tokens lie between 0 and 26, and vocab_size is 5"),
    (
        edited(TEXTS, ('"""Characters."""', "encode = lambda self, texts: [[0.5]]")),
        "should give integers (n,), not",
    ),
    (edited(TEXTS, ('"""Characters."""', "encode = lambda self, texts: texts[1]")), "the tokenizer of data source"),
]


def test_a_data_source_finds_its_archives(own, tmp_path):
    source = DATA.replace("    images, labels", '    assert data_dir == "there"\n    images, labels')
    assert "ImageSet" in trial(f"{own(source)}.mine", data_dir="there")


# Scorers


SCORER_FAULTS = [
    (edited(EXTRACTOR, ('return Extractor("mine", obtain, build)', "return obtain, build")),
     "extractor {name} returns tuple; it should return Extractor(title, obtain, build)"),
    (edited(EXTRACTOR, ('"mine"', "None")), "its title should be a text"),
    (edited(EXTRACTOR, ('"scale": torch.ones(1)}', '"scale": 1.0}')), "`obtain` should give ({{name: tensor}}"),
    (edited(EXTRACTOR, (", {}\n", ", None\n")), "`obtain` should give ({{name: tensor}}"),
    (edited(EXTRACTOR, (".mean(2)", ".mean((1, 2))")), "should give finite numbers (2, D), and gives Tensor (2,)"),
    (edited(EXTRACTOR, ("torch.ones(1)", "torch.full((1,), torch.nan)")), "should give finite numbers (2, D)"),
    (edited(EXTRACTOR, ('weights["scale"] *', "0 *")), "extractor {name} gives the same features of two random"),
    (edited(EXTRACTOR, ("(4, -1)", "(5, -1)")), "extractor {name}: build(weights): RuntimeError"),
    (edited(TEACHER, ("np.ones(len(tokens))", "np.ones((3, 1))")), "`nll` should give finite numbers (20,), and"),
    (edited(TEACHER, ("np.ones(len(tokens))", "1 / np.zeros(20)")), "`nll` should give finite numbers (20,)"),
    (edited(TEACHER, ("* letters(texts)", "* 2")), "`nll` gives the same of all of 20 random texts"),
    (edited(TEACHER, ("def nll", "def score")), "`build` gives what has no nll: define it, or leave it out of"),
    (edited(TEACHER, (', gives=("nll",)', "")), "`build` gives what has no features"),
    (edited(TEACHER, ('gives=("nll",)', "gives=()")), "gives () names nothing of features, nll"),
    (edited(TEACHER, ("np.ones(len(tokens))", "np.ones(tokens)")), "line 8: teacher {name}: `nll`: "),
    (edited(TEACHER, ("return Teacher(", "return (lambda *_, **__: mine)(")), "teacher {name} returns function"),
]  # fmt: skip


# Solvers, partitions and grids


CHAIN_FAULTS = [
    (edited(SOLVER, ("z = z + (", "z = z - (")), "from the answer that is known"),
    (edited(SOLVER, ("/ sigma", "/ (sigma - sigma)")), "z should be finite and stay of shape (64, 8)"),
    (edited(SOLVER, ("yield z, sigma", "yield z[:1], sigma")), "z should be finite and stay of shape (64, 8)"),
    (edited(SOLVER, ("yield z, sigma, block", "yield z, sigma, 2 - block")), "asks block 2 at sigma 80"),
    (edited(SOLVER, ("yield z, sigma, block", "yield z, 2 * sigma, block")), "asks block 0 at sigma 160"),
    (edited(SOLVER, ("yield z, sigma, block", "yield z, sigma")), "should yield (z, sigma, block)"),
    (edited(SOLVER, ("prediction = yield", "if block: return\n        prediction = yield")), "only [0] were asked"),
    (edited(SOLVER, ("prediction = yield z, sigma, block", "while True: prediction = yield z, sigma, block")),
     "has not ended after 2400 evaluations"),
    (edited(SOLVER, ("to_z(prediction, block)", "to_z(prediction)")), "line 7: solver {name}: TypeError"),
    (edited(PARTITION, ("+ q *", "+ (1 - q) *")), "do not fall from 80"),
    (edited(PARTITION, ("+ q *", "+ (q > 0.6) *")), "do not fall from 80"),
    (edited(PARTITION, ("q * (", "q / 0 * (")), "line 4: partition {name}, under EDM noise: ZeroDivisionError"),
    (edited(GRID, ("range(num_steps)", "range(1, num_steps)")), "are not 2 that fall from 80"),
    (edited(GRID, ("noise.lowest - noise", "noise.lowest / 0 - noise")), "line 4: grid {name}: ZeroDivisionError"),
    (PARTITION.replace("return (", "raise ValueError('never')\n    return ("), "never"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "words"), [*DATA_FAULTS, *SCORER_FAULTS, *CHAIN_FAULTS])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_faults_of_all_others(own, source, words):
    name = f"{own(source)}.mine"
    message = refusal(name)
    assert message.startswith(own.file) and words.format(name=name) in message, message


def test_a_solver_that_is_no_generator(own):
    name = own("def mine(z, sigmas, owners, to_z):\n    return z\n") + ".mine"
    assert "nothing says what kind" in refusal(name)
    assert f"{own.file}: solver {name} should be a generator" in refusal(name, "solver")
