"""What only a GPU shows: the CPU's numbers, no waiting within an update, the same bits after a kill.

Every test is skipped where there is no GPU.
"""

import pytest
import torch
from helpers import Data, first_parts, shaken

from diffusionblocks.base.device import pick_device
from diffusionblocks.methods import build
from diffusionblocks.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TRAIN = {"batch_size": 8, "lr": 0.01, "steps": 8, "ema": 0.9}


class OnGPU(Data):
    """The same data on the GPU."""

    def __init__(self):
        super().__init__()
        self.images, self.labels, self.tokens = (value.to(GPU) for value in (self.images, self.labels, self.tokens))


@pytest.fixture
def exact():
    """Products of matrices in single precision, not in TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture
def drawn_on_the_cpu(monkeypatch):
    """What a chain draws on its way comes from the CPU's generator, whose numbers a GPU's are not, and is moved."""
    randn = torch.randn

    def moved(*shape, device=CPU, **options):
        return randn(*shape, **options).to(device)

    monkeypatch.setattr(torch, "randn", moved)
    monkeypatch.setattr(torch, "randn_like", lambda z: moved(*z.shape, device=z.device, dtype=z.dtype))


def answer(run, device):
    """What a freshly built method says of the first 8 samples: predictions, or the bound of a masked model."""
    torch.manual_seed(0)
    method = shaken(build(run, Data.shape, None)).eval()
    method = method.to(device)
    batch = (OnGPU() if device == GPU else Data()).train_batch(torch.arange(8, device=device))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        if run["model"]["name"] == "masked_diffusion":
            u, eps = (torch.rand(*shape, generator=generator) for shape in ((8,), (8, 6)))
            return method.bound(batch, u.to(device), eps.to(device))
        eps = None if method.z_shape is None else torch.randn(8, *method.z_shape, generator=generator).to(device)
        prediction = method.predict(batch, eps)[-1].prediction
        return prediction.full() if hasattr(prediction, "full") else prediction


@pytest.mark.parametrize(("run", "part"), list(first_parts()))
def test_a_gpu_says_what_a_cpu_says(run, part, exact, drawn_on_the_cpu):
    here, there = answer(run, CPU), answer(run, GPU).cpu()
    scale = here.abs().mean()
    assert (here - there).abs().max() < 1e-3 * scale, f"{(here - there).abs().max():.2e} of {scale:.2e}"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("run", "part"), list(first_parts()))
def test_an_update_never_waits_for_the_gpu(run, part, precision):
    trainer = Trainer({**run, "seed": 0, "train": {**TRAIN, "precision": precision}}, part, OnGPU(), GPU)
    trainer.update(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        _, values = trainer.update(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert values.isfinite().all()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("run", "part"), list(first_parts()))
def test_going_on_after_a_kill_gives_the_same_bits(run, part, compiled):
    if compiled and run["model"]["name"] == "noprop_cnn":
        pytest.skip("no row compiles it")
    pick_device()  # what makes kernels repeat
    torch._dynamo.reset()
    run = {**run, "seed": 0, "train": {**TRAIN, "precision": "bf16", "compile": compiled}}
    whole = Trainer(run, part, OnGPU(), GPU)
    for step in range(2):
        whole.update(step)
    saved = {name: value.detach().clone() for name, value in whole.tensors().items()}
    for step in range(2, 5):
        whole.update(step)

    resumed = Trainer(run, part, OnGPU(), GPU)
    resumed.restore(saved)
    for step in range(2, 5):
        resumed.update(step)
    for name, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name
