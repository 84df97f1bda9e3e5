"""docs/extending.md: `try` tries its examples, and its rows are planned, as they stand there."""

import re
import sys

import pytest
import yaml
from conftest import ROOT, shipped

from diffusionblocks.data.source import call_source
from diffusionblocks.evaluation.trial import trial
from diffusionblocks.plan.explain import explain
from diffusionblocks.plan.plan import Plan
from diffusionblocks.plan.sections import sizes

PAGE = (ROOT / "docs/extending.md").read_text()
CODE = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)  # (file, source)
ROWS = re.findall(r"```yaml\n# (\S+?),?(?: [^\n]*)?\n(.*?)```", PAGE, re.DOTALL)  # (file, text)
TRIED = re.findall(r"`python -m diffusionblocks try (\w+\.[\w.]+)", PAGE)
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with all examples, from which Python imports as it does from the repository's root."""
    folder = tmp_path_factory.mktemp("extending")
    for file, source in CODE:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(source)
    (folder / "downloads/texts").mkdir(parents=True)
    for i in range(12):
        (folder / f"downloads/texts/{i:02}.txt").write_text("Fellow citizens, 1 text.\n" * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_nets", "my_parts")]:
        del sys.modules[name]


def configured(file, text):
    """The configuration with a block of the page in its file."""
    said = yaml.safe_load(text)
    return said if file == "mine.yaml" else {"tables": {re.fullmatch(r".*/(\w+)\.yaml", file)[1]: {"rows": said}}}


def test_every_example_is_tried():
    assert len(CODE) == len(re.findall("```python", PAGE)) and len(ROWS) == len(re.findall("```yaml", PAGE))
    modules = {file.removesuffix(".py").replace("/", ".") for file, _ in CODE}
    assert modules == {name if name in modules else name.rpartition(".")[0] for name in TRIED}


@pytest.mark.parametrize("name", TRIED)
def test_an_example_is_tried(name, root):
    assert f"{name} ({root}" in trial(name, data_dir=root / "downloads")


@pytest.mark.parametrize(("file", "text"), ROWS)
def test_its_rows_are_planned_and_train_nothing_else_again(file, text, root):
    before, found = shipped(), Plan.of({**CONFIG, **configured(file, text)})
    assert found.written != before.written
    for row in before.rows:
        for seed in before.rows[row].seeds:
            assert found.rows[row].run(seed) == before.rows[row].run(seed)
    used = {name for name in TRIED if name in text}
    assert used, "a block of rows names one of the examples"


def test_every_example_stands_in_a_row():
    assert all(any(name in text for _, text in ROWS) for name in TRIED)


def test_its_data_are_of_the_sizes_that_it_declares(root):
    section = {"name": "my_parts.images.odd_or_even"}
    _, found = call_source(section, root)
    images, labels = found["train_images"], found["train_labels"]
    shape = {"image_size": images.shape[2], "channels": images.shape[1], "num_classes": int(labels.max()) + 1}
    assert sizes(section) == {"shape": shape, "train_size": len(images)}


def test_explain_reads_the_table_of_the_page(root):
    row = re.search(r"`python -m diffusionblocks explain (\S+) --configfile mine\.yaml`", PAGE)[1]
    (root / "mine.yaml").write_text(next(text for _, text in ROWS if f"      {row.partition('/')[2]}:" in text))
    said = explain(row, files=[root / "mine.yaml"])
    assert "my_parts.images.odd_or_even" in said and f"{root}/mine.yaml:" in said
    assert "chain_from_target" not in said and "metrics.chain.name" in said
