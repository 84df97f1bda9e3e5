"""A training that several processes share out is the training of one: the same updates, the same files."""

import copy
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY, Checkout
from safetensors.torch import load_file
from test_faults import Job, command, digits, tiny  # noqa: F401 (digits is a fixture)

from diffusionblocks.base import slurm
from diffusionblocks.base.files import UserError, read_about, read_json_lines
from diffusionblocks.plan.code import digest, run_files
from diffusionblocks.training import team as teams
from diffusionblocks.training import train as training
from diffusionblocks.training.settings import Settings

CPU = torch.device("cpu")
# One that draws where the first label of a micro-batch is even: not as often for each.
OWN = """
    import torch
    from torch import nn
    from torch.nn import functional as F
    from diffusionblocks.models import base

    class Model(base.Model):
        def __init__(self, shape, noise=None, target_norm=1.0, *, num_layers=3, norm=False):
            super().__init__()
            pixels, classes = shape["channels"] * shape["image_size"] ** 2, shape["num_classes"]
            self.norm = nn.BatchNorm1d(pixels) if norm else nn.Identity()
            self.layers = nn.ModuleList(nn.Linear(pixels, pixels) for _ in range(num_layers))
            self.head = nn.Linear(pixels, classes)

        def end_to_end_prediction(self, batch):
            x = self.norm(batch["image"].flatten(1))
            for layer in self.layers:
                x = x + layer(x).relu()
            if self.training and not batch["label"][0] % 2:
                x = x + torch.rand(len(x), 1)
            return self.head(x)

        def end_to_end_loss(self, batch):
            return F.cross_entropy(self.end_to_end_prediction(batch), batch["label"], reduction="none")
"""


class Shared(Job):
    """A training job of several processes."""

    def __init__(self, folder, data, processes=1, row="vit_diffusionblocks", part="block1", model=None, **train):
        train = {"steps": 8, "warmup_steps": 2, "accumulate": 4, "ema": 0.9, "log_every": 2, **train}
        run = tiny(row, **train)
        if run["method"]["name"] == "diffusionblocks":
            run["method"]["loss_weight"] = "decoupled"  # by the levels of the whole update
        super().__init__(folder, data, {**run, "model": model or run["model"]}, part)
        self.processes = processes

    def arguments(self, seconds):
        return [*super().arguments(seconds), "--processes", str(self.processes)]

    def here(self, seconds=300):
        code = digest(run_files("train", self.run))
        files = self.folder / "run.json", self.part, self.weights, self.data, self.state
        training.train(*files, seconds, code, processes=self.processes)

    def losses(self):
        keys = ("step", "block", "loss", "objective", "gradient_norm")
        return [tuple(entry[key] for key in keys) for entry in read_json_lines(self.log) if "loss" in entry]

    def starts(self):
        """(step, processes) of each attempt."""
        found = [entry for entry in read_json_lines(self.log) if entry.get("event") == "start"]
        return [(entry["step"], entry.get("processes", 1)) for entry in found]


def assert_alike(one, other):
    first, second = load_file(one.weights), load_file(other.weights)
    assert first.keys() == second.keys()
    for name in first:
        if name.endswith(
            "qkv.bias"
        ):  # softmax ignores what all keys share: its gradient is rounding, which Adam scales
            for values in (first, second):
                values[name] = values[name].view(3, -1)[[0, 2]]
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-6, msg=name)
    for mine, theirs in zip(one.losses(), other.losses(), strict=True):
        assert mine[:2] == theirs[:2] and mine[2:] == pytest.approx(theirs[2:], rel=1e-4)


def helpers_of(pid):
    """Processes that a process has started and that compute; Python's own tracker of resources is one more."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"resource_tracker" not in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "part", "processes"),
    [
        ("vit_diffusionblocks", "block1", 2),
        ("vit_diffusionblocks_joint", "all", 2),
        ("vit_end_to_end", "all", 4),
        ("vit_forward_forward_contrastive", "all", 2),  # whose losses compare the samples of a micro-batch
    ],
)
def test_processes_train_what_one_trains(tmp_path, digits, capfd, row, part, processes):  # noqa: F811
    """With dropout and augmentations: every micro-batch draws what it draws in one process."""
    one, several = (Shared(tmp_path / str(n), digits, n, row, part) for n in (1, processes))
    one.here()
    several.here()
    assert_alike(one, several)
    said = capfd.readouterr()
    assert f"{processes} processes share out the 4 micro-batches" in said.out and not said.err
    assert (one.starts(), several.starts()) == ([(0, 1)], [(0, processes)])
    assert read_about(one.checkpoint)["identity"] == read_about(several.checkpoint)["identity"]


@pytest.mark.slow
def test_a_network_that_does_not_always_draw(tmp_path, digits, own, monkeypatch):  # noqa: F811
    """The state that a micro-batch leaves is foreseen, wrongly here, and the update is made anew."""
    model, astray, combine = {"name": own(OWN)}, [], teams.Team.combine
    one, several = (Shared(tmp_path / str(n), digits, n, "vit_end_to_end", "all", model) for n in (1, 2))
    one.here()
    monkeypatch.setattr(teams.Team, "combine", lambda *given: astray.append(combine(*given)) or astray[-1])
    several.here()
    assert_alike(one, several)
    assert len(astray) == 9 and sum(found is None for found in astray) == 1


@pytest.mark.slow
def test_a_network_that_never_draws_is_foreseen(tmp_path, digits, monkeypatch):  # noqa: F811
    foreseen = []
    one, several = (Shared(tmp_path / str(n), digits, n, "vit_end_to_end", "all", augment=[]) for n in (1, 2))
    for job in (one, several):
        job.run["model"]["dropout"] = 0.0
        job.configure(job.run)
    one.here()
    monkeypatch.setattr(teams.Team, "share", counted(teams.Team.share, foreseen))
    several.here()
    assert_alike(one, several)
    assert foreseen == [[]] + [[0]] * 7


def counted(share, found):
    """`share`, noting what it knows at its start of how far micro-batches move the generators."""

    def wrapper(self, *arguments):
        found.append(list(self._moves.values()))
        return share(self, *arguments)

    return wrapper


def test_a_gpus_generator_is_moved_on_by_what_it_has_drawn(monkeypatch):
    """Without a GPU: its generator's state is a seed and a count, 8 bytes each."""
    team, state = teams.Team(0, 2, torch.device("cuda"), {}), torch.tensor([7, 4], dtype=torch.int64)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: state.clone().view(torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda given: state.copy_(given.clone().view(torch.int64)))
    with torch.random.fork_rng([]):
        before = team._state()
        state[1] += 16
        team._learn("block", before, team._state())
        assert team._moves == {"block": 16}
        assert torch.equal(team._moved(before, 16), team._state())
        team._set(team._moved(before, 32))
        assert state.tolist() == [7, 36]
        torch.rand(1)  # of the CPU's generator, which cannot be moved on
        team._learn("block", before, team._state())
        assert team._moves == {}


@pytest.mark.slow
def test_a_statistic_of_micro_batches_is_refused(tmp_path, digits, own):  # noqa: F811
    job = Shared(tmp_path, digits, 2, "vit_end_to_end", "all", {"name": own(OWN), "norm": True})
    with pytest.raises(UserError, match=r"models\.all\.norm\.\w+: every micro-batch changes it.*gpu: 1"):
        job.here()
    assert not job.checkpoint.exists()


@pytest.mark.slow
def test_killed_and_gone_on_with_by_another_number_of_processes(tmp_path, digits):  # noqa: F811
    one, several = (Shared(tmp_path / str(n), digits, n, steps=60, log_every=1) for n in (1, 2))
    one.here()
    process = several.start(seconds=0)
    wait_until(lambda: several.checkpoint.exists() and read_about(several.checkpoint)["step"] >= 5)
    helpers = helpers_of(process.pid)
    process.kill()
    process.communicate()
    assert len(helpers) == 1
    wait_until(lambda: not any(Path(f"/proc/{helper}").exists() for helper in helpers))
    step = read_about(several.checkpoint)["step"]
    several.processes = 4
    several.here()
    assert_alike(one, several)
    assert several.starts() == [(0, 2), (step, 4)]


@pytest.mark.slow
def test_sigterm_to_all_processes_saves_once(tmp_path, digits):  # noqa: F811
    """As SLURM sends it; each at a moment of its own."""
    one, several = (Shared(tmp_path / str(n), digits, n, steps=200, log_every=1) for n in (1, 2))
    process = several.start(seconds=3600)
    wait_until(lambda: (several.state / "log.jsonl").exists() and len(helpers_of(process.pid)) == 1)
    (helper,) = helpers_of(process.pid)
    os.kill(helper, signal.SIGTERM)  # while it starts, too
    wait_until(lambda: any("loss" in entry for entry in read_json_lines(several.state / "log.jsonl")))
    for pid in (helper, process.pid, helper):
        os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143 and errors.count("\n") == 1, errors
    step = int(re.search(r"stopped on request after step (\d+) of 200", errors)[1])
    assert read_about(several.checkpoint)["step"] == step and not Path(f"/proc/{helper}").exists()
    assert several.files() == ["run.json", "state/checkpoint.safetensors", "state/log.jsonl"]
    several.processes = 1
    several.here()
    one.here()
    assert_alike(one, several)


@pytest.mark.slow
def test_a_process_that_dies_ends_all_with_a_message(tmp_path, digits):  # noqa: F811
    job = Shared(tmp_path, digits, 2, steps=5000, log_every=1)
    process = job.start(seconds=0)
    wait_until(job.checkpoint.exists)
    os.kill(helpers_of(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert errors.startswith("error: process 2 of the 2 that train together has ended (exit code -9)")
    assert not (job.state / "lock.json").exists()


def test_micro_batches_that_cannot_be_shared_out(tmp_path, digits, capsys):  # noqa: F811
    code, errors = command(capsys, *Shared(tmp_path, digits, 3).arguments(300))
    assert code == 2 and errors.count("\n") == 1
    assert "train.accumulate: 4: so many micro-batches" in errors and "3 GPUs. Ask for 1 or 2 or 4 (`gpu`" in errors
    for processes in (0, -2):
        with pytest.raises(UserError, match="accumulate"):
            Settings(batch_size=4, lr=1, steps=1).check_shared(processes)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 1),
        ({"gpu": 4}, 4),
        ({"gpu": "2", "gpu_model": "a100"}, 2),
        ({"gpu": 0}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:4"}, 4),
        ({"gres": "gpu:a100:8"}, 8),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "lscratch:100,gpu:2"}, 2),
        ({"gres": "lscratch:100"}, 1),
    ],
)
def test_gpus_that_a_profile_asks_for(asked, count):
    assert slurm.gpus(asked) == count


def test_gpus_that_are_no_number():
    with pytest.raises(UserError, match="`gpu` of train: 'many' should be a number"):
        slurm.gpus({"gpu": "many"})


@pytest.mark.slow
def test_the_profile_says_how_many_and_what_cannot_be_is_refused_at_once(fresh):
    def asked(scale, row, gpus, *options):
        target = f"results/{scale}/runs/table2/{row}/seed0/parts/all.safetensors"
        options = ("-p", "--config", f"scale={scale}", "--set-resources", f"train:gpu={gpus}", *options)
        return fresh.snakemake(target, *options, check=False, configfile=None)

    shown = asked("paper", "imagenet_dit_end_to_end", "4 if wildcards.row.startswith('imagenet') else 1", "-n")
    assert "--processes 4 -o" in shown.stdout, shown.stderr
    refused = asked("demo", "cifar10_dit_end_to_end", 2)
    assert refused.returncode
    assert "table2/cifar10_dit_end_to_end: train.accumulate: 1: so many" in refused.stdout + refused.stderr
    assert not (fresh.folder / "results/demo/data").exists()


@pytest.mark.slow
def test_a_workflow_with_two_processes_a_training(tmp_path):
    """Through rule and warm process; another number of them is no reason to train again."""
    settings = copy.deepcopy(TINY)
    settings["tables"]["table1"]["demo"]["train"]["accumulate"] = 2
    checkout = Checkout(tmp_path / "checkout", settings=settings)
    folder = "results/demo/runs/table1/vit_end_to_end/seed0/parts"
    asked = ("--resources", "gpu=2", "--set-resources", "train:gpu=2")
    checkout.snakemake(f"{folder}/all.safetensors", *asked)
    starts = [
        entry for entry in read_json_lines(checkout.folder / folder / "all.jsonl") if entry.get("event") == "start"
    ]
    assert [entry["processes"] for entry in starts] == [2]
    assert checkout.planned(f"{folder}/all.safetensors") == {}
