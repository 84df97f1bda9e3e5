"""Work-arounds of other libraries: that each is still needed or harmless, and that none stands anywhere else."""

import re
import subprocess
import sys

import pytest

from diffusionblocks.base.compat import hidden, mauve_package
from diffusionblocks.plan.source import PACKAGE


def test_work_arounds_stand_in_one_file():
    tricks = re.compile(r"\bmock\b|sys\.modules|inspect\.unwrap|setattr\(")
    files = {path for path in PACKAGE.rglob("*.py") if tricks.search(path.read_text())}
    assert files == {PACKAGE / "base/compat.py", PACKAGE / "base/warm.py"}  # the latter's are of this package itself


def test_a_hidden_package_comes_back(monkeypatch):
    import json

    with pytest.raises(ImportError), hidden("json"):
        import json
    assert sys.modules["json"] is json
    monkeypatch.delitem(sys.modules, "json")
    with pytest.raises(KeyError), hidden("json"):
        raise KeyError
    assert "json" not in sys.modules


def test_mauve_leaves_transformers_and_faiss_as_they_were():
    import faiss

    before = sys.modules.get("transformers"), faiss.Kmeans
    with mauve_package() as compute_mauve:
        assert callable(compute_mauve) and faiss.Kmeans is not before[1]
    assert (sys.modules.get("transformers"), faiss.Kmeans) == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [("AdamW", "fused=True"), ("Adafactor", "lr=0.1")])
def test_training_does_not_wait_for_the_compiler(kind, options):
    """Importing it takes a second, in each of a hundred jobs; and PyTorch's own optimizer makes the same steps."""
    program = (
        "import sys, torch; from diffusionblocks.base import compat\n"
        "def trained(kind):\n"
        f"    torch.manual_seed(0); layer = torch.nn.Linear(3, 3); optimizer = kind(layer.parameters(), {options})\n"
        "    for _ in range(3): layer(torch.randn(2, 3)).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "    optimizer.load_state_dict(optimizer.state_dict()); return layer.weight\n"
        f"ours = trained(compat.{kind}); assert 'torch._dynamo' not in sys.modules\n"
        f"assert torch.equal(ours, trained(torch.optim.{kind}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
