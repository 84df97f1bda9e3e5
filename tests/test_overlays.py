"""Whatever a user's file holds: a plan, or one line that names the key; and components of one's own."""

import datetime

import pytest
import yaml
from conftest import ROOT

from diffusionblocks.base.files import UserError
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.source import absent_members, class_constant, class_keywords, derives

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def refusal(overlay):
    """The one line with which an overlay is refused, or None."""
    try:
        plan = Plan.of({**CONFIG, **overlay})
        assert plan.written and plan.targets()
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    [
        "tables: {table6: null}",
        "tables: {table8: null, table_a2: null}",
        "tables: {table1: {gpu: null, claims: null, alias: null, figures: null}}",
        "tables: {table1: {rows: {vit_diffusionblocks_joint: {remark: null, against: null, demo: null}}}}",
        "tables: {table1: {rows: {vit_forward_forward_contrastive: null}}}",
        "tables: {table1: {gpu: {train: {steps: 3}}}}",
        "select: [table7]",
        "tables: null",
    ],
)
def test_what_can_be_planned_is(text):
    assert refusal(yaml.safe_load(text)) is None


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"data_dir": datetime.date(2026, 11, 26)}, ["config.data_dir", "date", "quotes"]),
        ({"tables": {1: {"title": "x"}}}, ["config.tables", "1", "quotes"]),
        ({"tables": {"table1": {"rows": {12: {}}}}}, ["table1.rows", "12", "quotes"]),
    ],
)
def test_what_yaml_reads_as_no_text_is_refused_however_it_came(overlay, words):
    """By --config, or in a file of JSON; a file of YAML is refused with its line."""
    message = refusal(overlay)
    assert message is not None and all(word in message for word in words), message


# Components of one's own


OWN = {
    "__init__": "",
    "sub": "from diffusionblocks.models import vit\nclass Model(vit.Model):\n    pass\n",
    "deeper": "from .sub import Model as Sub\nclass Model(Sub):\n    noise_kind: ClassVar[str] = 'masking'\n",
    "loud": "from diffusionblocks.models import vit\nclass Model(vit.Model):\n    noise_kind = 'gamma'\n",
    "bare": "from diffusionblocks.models import vit\nclass Model(vit.Model):\n"
    "    def __init__(self, shape, noise=None, target_norm=1.0, *, num_layers): ...\n",
    "plain": "from torch import nn\nclass Model(nn.Module):\n    def __init__(self, shape, *, num_layers=1): ...\n",
    "names": "from diffusionblocks.methods import base\nMODES = ('a', 'b')\nclass Method(base.Method):\n"
    "    needs = MODES\n    def __init__(self, network, part=None, *, mode: Literal[MODES] = 'a'): ...\n"
    "    def loss(self): ...\n    def predict(self): ...\n",
    "few": "from diffusionblocks.methods import base\nclass Method(base.Method):\n    needs = ()\n"
    "    def __init__(self, network, part=None, *, partition='x', num_blocks=None, sharing='independent',\n"
    "                 process='mean'): ...\n"
    "    def loss(self): ...\n    def predict(self): ...\n",
    "cuts": "def raises(noise, q):\n    return 1 / 0\ndef nothing(noise, q): ...\ndef takes_one(noise): ...\n",
    "judges": "def trained() -> Trained: ...\ndef ready() -> Extractor: ...\ndef texts(data_dir) -> TextSet: ...\n",
    "broken": "import no_such_package_at_all\ndef cut(noise, q): ...\n",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own_things"
    folder.mkdir()
    for name, text in OWN.items():
        (folder / f"{name}.py").write_text(text.replace("\\\n", "\n"))
    (folder / "latin.py").write_bytes(b"# \xe9\nclass Model: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_class_is_read_with_its_ancestors(own):
    contract = ROOT / "diffusionblocks/models/base.py"
    for file in (own / "sub.py", own / "deeper.py"):
        assert class_keywords(file, "Model")["num_layers"] == 12 and derives(file, "Model", contract)
        assert absent_members(file, "Model", ("predict", "to_z", "unconditional")) == ["unconditional"]
    assert class_constant(own / "deeper.py", "Model", "noise_kind") == "masking"
    assert class_constant(own / "sub.py", "Model", "noise_kind", "edm") == "edm"
    assert not derives(own / "plain.py", "Model", contract)


def row(**settings):
    """A table of one's own with a row that has these settings in place of ours."""
    sections = {
        "data": {"name": "digits"},
        "model": {"name": "vit", "num_layers": 6},
        "method": {"name": "diffusionblocks"},
        "train": {"steps": 1, "batch_size": 8, "lr": 0.1},
    }
    return {"tables": {"mine": {"title": "Mine", "demo": {}, "rows": {"row": {**sections, **settings}}}}}


def cut_by(partition):
    return row(method={"name": "diffusionblocks", "partition": partition})


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        (
            row(model={"name": "own_things.plain", "num_layers": 6}),
            ["plain.py", "must derive from", "models.base.Model"],
        ),
        (row(model={"name": "own_things.latin", "num_layers": 6}), ["latin.py", "UTF-8"]),
        (
            row(model={"name": "own_things.loud", "num_layers": 6}),
            ["row.model", "`noise_kind` is 'gamma'", "edm, masking"],
        ),
        (row(model={"name": "own_things.loud"}, method={"name": "end_to_end"}), ["row.model: num_layers", "is None"]),
        (row(model={"name": "own_things.bare", "num_layers": "6"}), ["row.model: num_layers", "is '6'"]),
        (row(method={"name": "own_things.names"}), ["names.py", "`needs`", "tuple of names"]),
        (
            cut_by("own_things.cuts.raises"),
            ["own_things.cuts.raises", "ZeroDivisionError"],
        ),
        (
            cut_by("own_things.cuts.nothing"),
            ["own_things.cuts.nothing", "TypeError"],
        ),
        (
            cut_by("own_things.cuts.takes_one"),
            ["own_things.cuts.takes_one", "TypeError"],
        ),
        (
            cut_by("own_things.broken.cut"),
            ["broken.py", "cannot be imported", "no_such_package"],
        ),
    ],
)
def test_a_component_that_cannot_work_is_named(own, overlay, words):
    message = refusal(overlay)
    assert message is not None and all(word in message for word in words), message


def test_an_extractor_that_is_trained_on_pixels_is_refused_for_latents(own):
    latents = {
        "model": {"name": "dit", "num_layers": 6},
        "data": {"name": "imagenet"},
        "metrics": {"m": {"name": "fid"}},
    }
    message = refusal(row(**latents, extractor={"name": "own_things.judges.trained"}))
    assert "row.extractor: own_things.judges.trained is trained on pixels, and imagenet has latents" in message
    assert refusal(row(**latents, extractor={"name": "own_things.judges.ready"})) is None


def test_a_source_of_texts_need_not_have_a_keyword_for_its_sequences(own):
    asked = {"name": "mauve", "teacher": {"name": "small_lm"}, "sampling": {"prompt_len": 400, "num_samples": 1000}}
    texts = {"data": {"name": "own_things.judges.texts"}, "model": {"name": "autoregressive", "num_layers": 6}}
    assert refusal(row(**texts, metrics={"mauve": asked})) is None
    assert "prompt_len 400" in refusal(row(**{**texts, "data": {"name": "sotu_sentences"}}, metrics={"mauve": asked}))


def test_a_method_may_share_a_keyword_with_ours(own):
    """Its `partition`, `num_blocks`, `sharing` or `process` need not mean what they mean here."""
    few = {"name": "own_things.few", "partition": "equi_probability"}
    model = {"name": "own_things.sub", "num_layers": 6}
    assert refusal(row(method=few, model=model)) is None


def test_a_package_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "failing_things").mkdir()
    (tmp_path / "failing_things/__init__.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "failing_things/net.py").write_text("class Model: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(row(model={"name": "failing_things.net", "num_layers": 6}))
    assert "failing_things" in message and "not today" in message
