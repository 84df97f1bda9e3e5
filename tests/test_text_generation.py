"""From trained weights to texts and their numbers, through the files that the jobs hand on."""

import json
import math

import pytest
import torch
from helpers import write_model

from diffusionblocks.base import tensors
from diffusionblocks.base.device import seed_of
from diffusionblocks.base.files import UserError, read_json, write_json
from diffusionblocks.data import load
from diffusionblocks.data.prepare import prepare
from diffusionblocks.diffusion import chains as sampling
from diffusionblocks.diffusion.chains import Step
from diffusionblocks.diffusion.masking import Masking
from diffusionblocks.evaluation.evaluate import evaluate
from diffusionblocks.layers.vocabulary import nucleus
from diffusionblocks.methods import build, load_trained
from diffusionblocks.sampling.sample import hasten, sample
from diffusionblocks.scorers.teacher import teacher

CPU = torch.device("cpu")
SIZES = {"num_layers": 2, "width": 16, "num_heads": 2, "mlp_width": 16}
DATA = {
    "characters": {"name": "sotu_characters", "seq_len": 16, "test_size": 30},
    "sentences": {"name": "sotu_sentences", "seq_len": 16, "test_size": 30},
}
BLOCKS = {"name": "diffusionblocks", "num_blocks": 2}
MODELS = {
    "masked": ("characters", {"name": "masked_diffusion", **SIZES}, {**BLOCKS, "loss_weight": "per_sample"}),
    "plain": ("sentences", {"name": "autoregressive", **SIZES}, {"name": "end_to_end"}),
    "denoiser": ("sentences", {"name": "autoregressive", **SIZES}, BLOCKS),
    "recurrent": (
        "sentences",
        {"name": "recurrent_depth", "prelude_layers": 1, "coda_layers": 1, "recurrences": 2, **SIZES},
        {**BLOCKS, "num_blocks": 1},
    ),
}
CONTINUED = {"num_samples": 20, "sets": 1, "shards": 1, "continuations": 5, "prompt_len": 6, "new_tokens": 5}
LEARNED = {"name": "small_lm", "width": 8, "steps": 5}
COUNTED = {"name": "ngram", "order": 3}


class Job:
    """A row's files, with weights that no training made."""

    def __init__(self, folder, data, name):
        self.folder, self.name = folder, name
        self.data, self.model, self.run = data, folder / f"{name}.model.json", folder / f"{name}.json"
        kind, model, method = MODELS[name]
        settings = {"data": DATA[kind], "model": model, "method": method, "train": {"steps": 4}}
        self.settings = {"scale": "demo", "table": "t", "row": name, "seed": 3, **settings}
        write_json(self.run, self.settings)
        torch.manual_seed(0)
        method = build(self.settings, load(data, CPU).shape, None)
        with torch.no_grad():
            weights = {name: value + 0.1 * torch.randn(value.shape) for name, value in method.state_dict().items()}
        write_model(self.model, weights, self.settings)
        entries = [{"event": "start", "step": 0}, {"step": 4, "block": 0, "loss": 1.0, "samples_per_second": 9.0}]
        self.log = folder / f"{name}-block0.jsonl"
        self.log.write_text("".join(json.dumps(entry) + "\n" for entry in [*entries, {"event": "end"}]))

    def shards(self, sampling):
        paths = []
        for shard in range(sampling["shards"]):
            paths.append(self.folder / f"{self.name}-{json.dumps(sampling)[:60]}-{shard}.safetensors")
            sample(self.run, self.model, self.data, sampling, shard, paths[-1])
        return paths

    def evaluate(self, sections, shards=(), teachers=()):
        path = self.folder / f"{self.name}-metrics.json"
        evaluate(self.run, self.model, self.data, sections, [self.log], path, shards, teachers)
        return read_json(path)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    files = {name: folder / f"{name}.safetensors" for name in DATA}
    for name, path in files.items():
        prepare(DATA[name], "nowhere", path)
    return {name: Job(folder, files[kind], name) for name, (kind, _, _) in MODELS.items()}


@pytest.fixture(scope="module")
def teachers(jobs):
    job, paths = jobs["denoiser"], []
    for section in (LEARNED, COUNTED):
        paths.append(job.folder / f"{section['name']}.teacher")
        teacher(section, job.data, None, paths[-1])
    return paths


def tokens(paths):
    return torch.cat([tensors.read(path, "")[0]["tokens"] for path in paths])


@pytest.mark.parametrize("name", ["plain", "denoiser", "recurrent"])
def test_continuations_start_with_their_prompts_and_shards_change_nothing(jobs, name):
    job = jobs[name]
    whole, split = tokens(job.shards(CONTINUED)), tokens(job.shards({**CONTINUED, "shards": 3}))
    assert whole.shape == (20, 11) and torch.equal(whole, split)
    prompts = load(job.data, CPU).test_tokens[:4, :6].repeat_interleave(5, dim=0)
    assert torch.equal(whole[:, :6], prompts.int())
    if name != "denoiser":  # whose last block has not learned to read z: its chance weights write one token for all
        assert len(whole[:5].unique(dim=0)) == 5  # continuations of one prompt differ: each has noise of its own


def test_masked_texts_are_whole_and_shards_change_nothing(jobs):
    sampling = {"num_samples": 6, "sets": 1, "shards": 1, "num_steps": 8}
    whole = tokens(jobs["masked"].shards(sampling))
    assert whole.shape == (6, 16) and whole.min() >= 0 and whole.max() < 27
    assert torch.equal(whole, tokens(jobs["masked"].shards({**sampling, "shards": 2})))
    rounded = tokens(jobs["masked"].shards({**sampling, "precision": "bf16"}))
    assert (rounded == whole).float().mean() > 0.7


def test_masked_texts_draw_in_double_precision_and_networks_compute_in_single(jobs, monkeypatch):
    """A share of a thousandth leaves too few of float32's uniforms to choose rare tokens by."""
    seen, chain = [], Masking.chain
    monkeypatch.setattr(Masking, "chain", lambda self, draws, *rest: seen.append(draws) or chain(self, draws, *rest))
    jobs["masked"].shards({"num_samples": 3, "sets": 1, "shards": 1, "num_steps": 5})
    (draws,) = seen
    assert draws.shape == (3, 5, 16) and draws.dtype == torch.float64
    assert (draws * 2**24 % 1 != 0).all() and draws.min() >= 0 and draws.max() < 1


@pytest.mark.parametrize("name", ["plain", "denoiser", "recurrent"])
def test_bf16_rounds_what_layers_compute_and_their_caches(jobs, name):
    job = jobs[name]
    assert tokens(job.shards({**CONTINUED, "precision": "bf16"})).shape == (20, 11)
    data, found = load(job.data, CPU), []
    for precision in ("fp32", "bf16"):
        method = load_trained(job.settings, job.model, data.shape).eval()
        hasten(method, CPU, precision, False)
        model, layers = method.acting(0)
        eps = torch.randn(4, 8, model.z_shape[-1], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            session = model.begin(data.test_tokens[:4, :6].long(), layers, 8, eps)
            session.append(data.test_tokens[:4, 6].long())
            found.append(session.predict(*(() if model.noise is None else (eps[:, 7], 1.0))).full())
    exact, rounded = found
    assert rounded.dtype == exact.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_a_token_of_the_denoiser_costs_one_pass_per_block_and_one_for_the_caches(jobs):
    (path,) = jobs["denoiser"].shards(CONTINUED)
    # Two layers: a level each, and the clean token through both; the prompt is one more pass.
    assert tensors.about(path, "")["evaluations"] == {"layers": (5 * (2 + 2) + 2) / 5, "num_layers": 2}


def test_prompts_that_are_not_there_are_refused(jobs):
    for wrong in ({"num_samples": 200}, {"new_tokens": 11}):
        with pytest.raises(UserError, match="Lower num_samples, prompt_len or new_tokens"):
            jobs["plain"].shards({**CONTINUED, **wrong})


def test_metrics_of_a_chain_and_of_its_texts(jobs, teachers):
    sections = {
        "loss": {"name": "next_token_loss", "sampling": {}},
        "chain": {"name": "next_token_loss_per_step", "sampling": {"from_target": True}},
        "mauve": {"name": "mauve", "teacher": LEARNED, "sampling": CONTINUED},
        "learned": {"name": "generative_perplexity", "teacher": LEARNED, "sampling": CONTINUED},
        "counted": {"name": "generative_perplexity", "teacher": COUNTED, "sampling": CONTINUED},
        "real": {"name": "reference_perplexity", "teacher": COUNTED, "sampling": CONTINUED},
        "distinct_2": {"name": "distinct_2", "sampling": CONTINUED},
    }
    job = jobs["denoiser"]
    found = job.evaluate(sections, job.shards({**CONTINUED, "shards": 2}), teachers)
    numbers = {name: number["value"] for name, number in found["metrics"].items()}
    assert 0 < numbers["mauve"] <= 1 and 0 < numbers["distinct_2"] <= 100
    assert 1 < numbers["real"] < numbers["counted"] < math.inf  # weights of chance write worse than presidents
    assert found["metrics"]["mauve"]["extractor"] == "small language model trained on the data"
    assert found["metrics"]["counted"]["samples"] == 20
    curve = found["curves"]["chain"]
    assert (curve["figure"], curve["from_target"]) == ("loss_chain", True)
    assert found["metrics"]["loss"]["unit"] == "nats" and found["metrics"]["loss"]["beside"] is True
    assert curve["block"] == [0, 1] and curve["sigma"] == pytest.approx([80, 0.002]) and len(curve["value"]) == 2
    assert [len(pair) for pair in found["samples"]["texts"]] == [2] * 4  # the first continuation of each prompt
    assert [job["first"] for job in found["sampling"]] == [0, 10]


@pytest.mark.parametrize("name", ["plain", "denoiser", "recurrent"])
def test_what_a_chain_puts_out_and_what_it_makes_of_another_context(jobs, name):
    columns = {"entropy": "output_entropy", "brier": "brier_score", "right": "sampled_accuracy"}
    columns |= {"loss": "next_token_loss", "scrambled": "scrambled_loss"}
    job = jobs[name]
    found = {column: number["value"] for column, number in job.evaluate(
        {column: {"name": metric, "sampling": {}} for column, metric in columns.items()}
    )["metrics"].items()}  # fmt: skip
    assert found["brier"] == pytest.approx(math.exp(-found["entropy"]) - 2 * found["right"] / 100 + 1)
    assert 0 < found["entropy"] < math.log(512)
    data = load(job.data, CPU)
    method, tokens = load_trained(job.settings, job.model, data.shape).eval(), data.test_tokens.long()
    eps, again = (
        method.z_shape and torch.randn(30, *method.z_shape, generator=torch.Generator().manual_seed(seed_of(*names)))
        for names in ((3, "evaluation"), (3, "evaluation", "again"))
    )
    with torch.inference_mode():
        steps = [method.predict({"tokens": tokens}, draws)[-1] for draws in (eps, again)]
        chances = [step.prediction.full()[:, -15:].softmax(-1) for step in steps]
        assert found["entropy"] == pytest.approx(-math.log((chances[0] * chances[1]).sum(-1).mean()))
        nats = []
        for i in range(1, 16):  # token i after the other sequence's tokens, all that it may see
            mixed = {"tokens": torch.cat([tokens.roll(1, 0)[:, :i], tokens[:, i:]], dim=1)}
            first = method.predict(mixed, eps)[0].prediction
            nats.append(first._replace(hidden=first.hidden[:, -15:]).cross_entropy(tokens[:, 1:])[:, i - 1])
    assert found["scrambled"] == pytest.approx(torch.stack(nats).mean().item(), abs=1e-4)
    assert found["scrambled"] != pytest.approx(found["loss"], abs=5e-4)


def test_a_context_that_cannot_be_scrambled_is_refused(tmp_path):
    prepare({**DATA["sentences"], "test_size": 1}, "nowhere", tmp_path / "one.safetensors")
    job = Job(tmp_path, tmp_path / "one.safetensors", "plain")
    with pytest.raises(UserError, match="test_size: a context can only be scrambled where there are two test seq"):
        job.evaluate({"scrambled": {"name": "scrambled_loss", "sampling": {}}})


def test_likelihood_is_that_of_all_levels_and_its_density_has_it_as_its_mean(jobs):
    sampling = {"passes": 48}
    sections = {
        "bpc": {"name": "bpc", "sampling": sampling},
        "density": {"name": "bpc_by_level", "sampling": sampling},
        "error": {"name": "bpc_standard_error", "sampling": sampling},
    }
    found = jobs["masked"].evaluate(sections)
    density, bpc = found["curves"]["density"], found["metrics"]["bpc"]["value"]
    assert sum(density["value"]) / 24 == pytest.approx(bpc, rel=0.01)  # as many draws in each interval, nearly
    assert density["block"] == [1] * 12 + [0] * 12  # block 0 owns the rates near 1
    assert 0 < found["metrics"]["error"]["value"] < 0.1 * bpc
    assert found["partition"]["noise"] == {} and found["partition"]["mass"] == pytest.approx([0.5, 0.5])


def test_what_an_update_costs_is_counted(jobs):
    sections = {name: {"name": name} for name in ("layers_forward", "layers_backward")}
    numbers = jobs["recurrent"].evaluate(sections)["metrics"]
    assert {name: number["value"] for name, number in numbers.items()} == dict.fromkeys(sections, 4)  # each layer once
    numbers = jobs["denoiser"].evaluate(sections)["metrics"]
    assert {name: number["value"] for name, number in numbers.items()} == dict.fromkeys(
        sections, 1
    )  # a block at a time


def test_missing_files_are_named(jobs, teachers):
    job, other = jobs["denoiser"], jobs["plain"].shards(CONTINUED)
    mauve = {"mauve": {"name": "mauve", "teacher": LEARNED, "sampling": CONTINUED}}
    shards = job.shards({**CONTINUED, "shards": 2})
    for paths, words in (
        (other, "another run than t/denoiser"),
        (shards[1:], r"1 files, which start with the samples \[10\]"),
    ):
        with pytest.raises(UserError, match=words):
            job.evaluate(mauve, paths, teachers)
    with pytest.raises(UserError, match=r"start with the samples \[0\], are not the 2 shards"):
        job.evaluate(mauve, shards[:1], teachers)
    with pytest.raises(UserError, match="no weights of the teacher small_lm"):
        job.evaluate(mauve, shards, teachers[1:])
    with pytest.raises(UserError, match=r"is no teacher's weights \(--scorers\)"):
        job.evaluate(mauve, shards, [*teachers, shards[0]])
    with pytest.raises(UserError, match=r"no samples of .*hand over all shards"):
        job.evaluate({"mauve": {**mauve["mauve"], "sampling": {**CONTINUED, "new_tokens": 4}}}, shards, teachers)


def test_a_users_own_teacher_judges_texts(jobs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_teachers.py").write_text("""
import numpy as np
from diffusionblocks.scorers.teachers import Teacher

class Scorer:
    def nll(self, texts, tokens, prompt_len, prompts):
        return np.ones(len(tokens)), np.full(len(tokens), tokens.shape[1] - prompt_len)

def mine(*, title="mine") -> Teacher:
    return Teacher(title, lambda text, data_dir: ({}, {}), lambda weights, about: Scorer())
""")
    section, job = {"name": "my_teachers.mine", "title": "a nat a text"}, jobs["denoiser"]
    teacher(section, job.data, None, tmp_path / "mine.teacher")
    wanted = {"ppl": {"name": "generative_perplexity", "teacher": section, "sampling": CONTINUED}}
    found = job.evaluate(wanted, job.shards(CONTINUED), [tmp_path / "mine.teacher"])["metrics"]["ppl"]
    assert found["value"] == pytest.approx(math.exp(1 / 5)) and found["extractor"] == "a nat a text"
    wanted["mauve"] = {**wanted["ppl"], "name": "mauve"}
    with pytest.raises(UserError, match=r"teacher my_teachers\.mine: has no features"):
        job.evaluate(wanted, job.shards(CONTINUED), [tmp_path / "mine.teacher"])


def test_nucleus_draws_from_the_fewest_tokens_that_reach_top_p():
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    draws = torch.linspace(0, 0.9999, 4001)
    found = nucleus(probabilities.expand(4001, -1), draws, 0.7)
    shares = [(found == token).float().mean().item() for token in range(4)]
    assert shares == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.001)
    everything = nucleus(probabilities.expand(4001, -1), draws, 1.0)
    shares = [(everything == token).float().mean().item() for token in range(4)]
    assert shares == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.001)
    assert nucleus(probabilities, draws[:1], 1e-9).tolist() == [1]  # the likeliest is always left


def test_generating_whole_texts_keeps_no_step_but_the_last(jobs, monkeypatch):
    """Each holds hidden states of all texts: a thousand of them are 79 GB at the paper's sizes."""
    alive = []

    class Watched(Step):
        def __del__(self):
            alive.remove(id(self))

    def watched(*arguments):
        step = Watched(*arguments)
        alive.append(id(step))
        assert len(alive) < 4
        return step

    monkeypatch.setattr(sampling, "Step", watched)
    jobs["masked"].shards({"num_samples": 2, "sets": 1, "shards": 1, "num_steps": 12})
