"""What is timed: known answers by a clock of the tests, what is planned, and a table from its file to its page."""

import itertools
import json
import types

import pytest
import torch
import yaml
from conftest import ROOT, Checkout, shipped

from diffusionblocks.base.files import UserError
from diffusionblocks.evaluation import count, timing
from diffusionblocks.evaluation.metrics import seconds
from diffusionblocks.models import vit
from diffusionblocks.plan.code import timing_files
from diffusionblocks.plan.plan import Plan

CPU = torch.device("cpu")
IMAGES = {"image_size": 8, "channels": 1, "num_classes": 10}
MODEL = {"name": "vit", "num_layers": 3, "width": 24, "num_heads": 2, "mlp_width": 48, "patch_size": 4}
TRAIN = {"batch_size": 32, "steps": 20, "lr": 0.001}
BLOCKS = {"name": "diffusionblocks", "num_blocks": 3}


class FakeClock:
    """Whose time passes only in updates."""

    def __init__(self):
        self.now = 0.0

    def moment(self):
        return self.now

    def seconds(self, moments):
        return [later - earlier for earlier, later in itertools.pairwise(moments)]


@pytest.fixture
def clock(monkeypatch):
    """A clock, and trainers whose updates take as long as `takes` says; `turns` lists (row, part, its updates)."""
    clock = FakeClock()
    clock.turns, clock.takes = [], lambda run, part, step: 1.0

    class FakeTrainer:
        def __init__(self, run, part, data, device):
            assert data.train_batch(torch.arange(run["train"]["batch_size"]))["image"].shape[1:] == (1, 8, 8)
            self.run, self.part, self.blocks = run, part, [0, 1, 2] if run["method"].get("sharing") == "joint" else [0]
            self.steps = []
            clock.turns.append((run["row"], part, self.steps))

        def update(self, step):
            self.steps.append(step)
            clock.now += clock.takes(self.run, self.part, step)
            return self.blocks[step % len(self.blocks)], None

    monkeypatch.setattr(timing, "Trainer", FakeTrainer)
    return clock


def asked(rows, **changes):
    """What planning writes; rows: {row: method section}."""
    timed = {}
    for row, method in rows.items():
        run = {"scale": "demo", "table": "t", "row": row, "seed": 0, "data": {"name": "digits"}}
        run |= {"model": MODEL, "method": method, "train": TRAIN}
        parts = [f"block{i}" for i in range(3)] if method.get("sharing") == "independent" else ["all"]
        timed[row] = {"run": run, "parts": parts, "shape": IMAGES, "chains": {}}
    how = {"updates": 100, "updates_on_cpu": 6, "samples_on_cpu": 8, "compared": next(iter(rows))}
    return {**how, "timed": timed, **changes}


def updates(request, clock):
    """What was timed of the updates of each row."""
    return {row: found["update"] for row, found in timing.time_rows(request, CPU, clock).items()}


ROWS = {
    "whole": {"name": "end_to_end"},
    "block": {**BLOCKS, "sharing": "independent"},
    "blocks": {**BLOCKS, "sharing": "independent"},
    "joint": {**BLOCKS, "sharing": "joint"},
}


def test_rows_take_turns_and_what_trains_the_same_is_timed_once(clock):
    found = updates(asked(ROWS), clock)
    networks = [("whole", "all"), ("block", "block0"), ("joint", "all")]
    assert [(row, part) for row, part, _ in clock.turns] == networks * timing.TURNS
    assert found["block"] == found["blocks"] and [block["part"] for block in found["block"]["blocks"]] == [
        *("block0", "block1", "block2")
    ]
    assert {block["like"] for block in found["block"]["blocks"]} == {"block0"}
    assert [len(found[row]["blocks"]) for row in ROWS] == [1, 3, 3, 3]
    assert all(block["updates"] == 6 for row in found.values() for block in row["blocks"])
    # One update that is not timed, one from which the number follows, two of each block.
    assert [len(steps) for _, _, steps in clock.turns[:3]] == [4, 4, 8]
    assert all(steps == sorted(set(steps)) for _, _, steps in clock.turns), "no update twice"
    assert found["whole"]["samples"] == 8 and found["whole"]["precision"] == "fp32"
    assert "1 thread" in found["whole"]["hardware"] and found["whole"]["torch"] == torch.__version__


def test_medians_quartiles_and_sums_of_known_seconds(clock):
    """Of six updates in three turns: 1, 2, 3, 4, 5 and 100 s end to end; the first two of each turn do not count."""
    turns, seconds_of = [1.0, 2.0, 3.0, 4.0, 5.0, 100.0], {}

    def takes(run, part, step):
        if step < 2:
            return 0.5
        left = seconds_of.setdefault(run["row"], list(turns))
        return left.pop(0) * (1 if run["row"] == "whole" else 0.25)

    clock.takes = takes
    found = updates(asked({row: ROWS[row] for row in ("whole", "block")}), clock)
    (whole,) = found["whole"]["blocks"]
    assert whole["seconds"] == 3.5 and whole["quartiles"] == [2.25, 4.75]
    assert seconds.seconds_per_iteration(found["block"]) == 3.5 / 4
    assert seconds.seconds_per_iteration(found["block"], blocks="all") == 3 * 3.5 / 4
    assert seconds.seconds_per_iteration(found["whole"], blocks="all") == 3.5
    assert seconds.time_factor(found["block"], found["whole"]) == 0.75
    assert seconds.time_factor(found["block"], found["whole"], blocks="one") == 0.25
    assert seconds.milliseconds_per_sample(found["block"]) == pytest.approx(1000 * 3 * 3.5 / 4 / 8)
    halved = {**found["block"], "samples": 4}  # as long for half as many samples
    assert seconds.time_factor(halved, found["whole"]) == 1.5
    about = count.conditions(found["whole"])
    assert about["how"] == "8 samples at a time, median of 6 times in 3 turns, half of them within 35.7% of it"


def test_blocks_that_differ_are_each_timed(clock):
    request = asked({"uneven": {**BLOCKS, "sharing": "independent", "layers_per_block": [2, 1, 1]}})
    request["timed"]["uneven"]["run"]["model"] = {**MODEL, "num_layers": 4}
    clock.takes = lambda run, part, step: 2.0 if part == "block0" else 1.0
    found = updates(request, clock)["uneven"]
    assert [(block["part"], block["like"], block["seconds"]) for block in found["blocks"]] == [
        *(("block0", "block0", 2.0), ("block1", "block1", 1.0), ("block2", "block1", 1.0))
    ]
    assert seconds.seconds_per_iteration(found) == 4 / 3 and seconds.seconds_per_iteration(found, blocks="all") == 4


def test_a_turn_has_an_end(clock):
    """A slow update is timed once a turn, and not a hundred times."""
    clock.takes = lambda run, part, step: 60.0
    found = updates(asked({"whole": ROWS["whole"]}, updates_on_cpu=300), clock)
    assert found["whole"]["blocks"][0]["updates"] == timing.TURNS


def test_what_does_not_fit_into_memory_has_no_seconds_and_says_why(clock, monkeypatch):
    turn = timing.one_turn

    def too_small(run, *rest):
        if run["row"] == "whole":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return turn(run, *rest)

    monkeypatch.setattr(timing, "one_turn", too_small)
    found = updates(asked({row: ROWS[row] for row in ("whole", "block")}), clock)
    assert found["whole"]["untimed"].startswith("does not fit into the memory of") and found["block"]["blocks"]


def test_without_samples_for_a_cpu_nothing_is_timed_there(clock):
    found = updates(asked(ROWS, samples_on_cpu=None), clock)
    assert found == {row: {"untimed": "timed on a GPU alone"} for row in ROWS} and not clock.turns


def written(folder, **metrics):
    """metrics.json of the row `block` by real updates of tiny networks, beside `whole`; metrics: its columns."""
    request = asked({row: ROWS[row] for row in ("whole", "block")}, updates_on_cpu=3, samples_on_cpu=4)
    timing.timing(request, folder / "timing.json", "hash")
    run = {**request["timed"]["block"]["run"], "train": {**TRAIN, "precision": "bf16"}}
    (folder / "run.json").write_text(json.dumps(run))
    sections = {column: {"name": column, "sampling": {}, **section} for column, section in metrics.items()}
    evaluation = {"metrics": sections, "parts": request["timed"]["block"]["parts"], "shape": IMAGES}
    count.count(folder / "run.json", evaluation, folder / "metrics.json", timing=[folder / "timing.json"])
    return json.loads((folder / "timing.json").read_text()), json.loads((folder / "metrics.json").read_text())


def test_real_updates_come_to_numbers_that_say_how_they_were_taken(tmp_path):
    times, found = written(tmp_path, seconds_per_iteration={"blocks": "all"}, time_factor={}, peak_memory={})
    assert times["run"]["row"] == "whole" and times["code"] == "hash" and times["timing"]["hardware"]
    block, whole = (
        sum(one["seconds"] for one in times["timed"][row]["update"]["blocks"]) for row in ("block", "whole")
    )
    numbers = found["metrics"]
    assert numbers["seconds_per_iteration"]["value"] == block > 0
    assert numbers["time_factor"]["value"] == pytest.approx(block / whole)
    about = numbers["time_factor"]["timed"]
    assert "fp32, torch" in about["where"] and about["how"].startswith("4 samples at a time, median of 3 times")
    assert numbers["seconds_per_iteration"]["samples"] == 4 and numbers["peak_memory"]["samples"] == 32
    assert "timed" not in numbers["peak_memory"] and found["timing"] == times["timing"]
    assert found["data"]["title"] == "none: counted and timed on chance at the sizes of digits"


def test_chains_are_timed_with_the_sampling_of_their_column(tmp_path, monkeypatch):
    """As many predictions as it asks for; the whole has no column `few`, so there is no factor of it."""
    predictions, in_a_chain = [], {}
    predict, chain = vit.Model.predict, timing._chain
    monkeypatch.setattr(vit.Model, "predict", lambda *given: predictions.append(1) or predict(*given))

    def counted(run, shape, sampling, device):
        answer, blocks = chain(run, shape, sampling, device)

        def act(step):
            before, block = len(predictions), answer(step)
            in_a_chain.setdefault((run["row"], *sampling.values()), set()).add(len(predictions) - before)
            return block

        return act, blocks

    monkeypatch.setattr(timing, "_chain", counted)
    request = asked({row: ROWS[row] for row in ("whole", "block")}, samples_on_cpu=4)
    for about in request["timed"].values():
        about.update(parts=[], chains={"many": {}})
    request["timed"]["block"]["chains"] = {"many": {"num_steps": 12}, "few": {"num_steps": 3}}
    timing.timing(request, tmp_path / "timing.json")
    times = json.loads((tmp_path / "timing.json").read_text())["timed"]
    assert "update" not in times["block"] and sorted(times["block"]["chains"]) == ["few", "many"]
    assert in_a_chain == {("whole",): {0}, ("block", 12): {12}, ("block", 3): {3}}
    many = times["block"]["chains"]["many"]["blocks"][0]["seconds"]
    (tmp_path / "run.json").write_text(json.dumps(request["timed"]["block"]["run"]))
    evaluation = {"parts": ["block0"], "shape": IMAGES, "metrics": {}}
    for column, name in (("few", "answer_time_factor"), ("many", "answer_time_factor")):
        evaluation["metrics"][column] = {"name": name, "sampling": request["timed"]["block"]["chains"][column]}
    count.count(tmp_path / "run.json", evaluation, tmp_path / "metrics.json", timing=[tmp_path / "timing.json"])
    found = json.loads((tmp_path / "metrics.json").read_text())
    whole = times["whole"]["chains"]["many"]["blocks"][0]["seconds"]
    assert found["metrics"]["many"]["value"] == pytest.approx(many / whole) and "few" not in found["metrics"]
    assert found["data"]["title"].endswith("; few: not timed of the row that it is compared with")


def test_chains_of_half_precision_are_those_of_evaluation_in_single(clock):
    request = asked({"whole": ROWS["whole"]})
    request["timed"]["whole"].update(chains={"a": {}})
    request["timed"]["whole"]["run"]["train"] = {**TRAIN, "precision": "bf16"}
    found = timing.time_rows(request, CPU, clock)["whole"]
    assert found["update"]["precision"] == "bf16" and found["chains"]["a"]["precision"] == "fp32"


def test_times_of_other_rows_are_refused(tmp_path):
    written(tmp_path, time_factor={})
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run, "row": "other"}))
    evaluation = {"metrics": {}, "parts": ["block0"], "shape": IMAGES}
    with pytest.raises(UserError, match="holds no times of row other"):
        count.count(tmp_path / "run.json", evaluation, tmp_path / "again.json", timing=[tmp_path / "timing.json"])


def test_what_could_not_be_timed_is_told_in_place_of_the_data(tmp_path):
    """Once for its columns, and a factor lacks where the row that is compared with does."""
    _, found = written(tmp_path, time_factor={}, seconds_per_iteration={}, milliseconds_per_sample={})
    times = json.loads((tmp_path / "timing.json").read_text())
    times["timed"]["whole"]["update"] = {"untimed": "too large"}
    (tmp_path / "timing.json").write_text(json.dumps(times))
    evaluation = {"parts": ["block0"], "shape": IMAGES, "on_a_gpu": ["late"]}
    evaluation["metrics"] = {name: {"name": name, "sampling": {}} for name in ("time_factor", "seconds_per_iteration")}
    count.count(tmp_path / "run.json", evaluation, tmp_path / "again.json", timing=[tmp_path / "timing.json"])
    found = json.loads((tmp_path / "again.json").read_text())
    assert list(found["metrics"]) == ["seconds_per_iteration"]
    assert found["data"]["title"].endswith("; late: timed on a GPU alone; time_factor: too large")


# What planning makes of it


def config(scale="demo", **tables):
    shipped_config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return {**shipped_config, "scale": scale, "tables": tables, "select": list(tables) or "all"}


def table(**changes):
    shape = {"image_size": 16, "channels": 1, "num_classes": 10}
    rows = {
        "whole": {"like": "table1/vit_end_to_end", "shape": shape},
        "block": {"like": "table1/vit_diffusionblocks", "shape": shape, "against": "whole"},
    }
    found = {
        "title": "Timed",
        "counted": "demo",
        "train": {"precision": "fp32", "compile": False},
        "timing": {"samples_on_cpu": 2, "updates_on_cpu": 3},
        "metrics": {"seconds": {"name": "seconds_per_iteration"}, "factor": {"name": "time_factor"}},
        "rows": rows,
    }
    return {**found, **changes}


def test_rows_that_are_compared_are_timed_in_one_job():
    plan = Plan.of(config(mine=table()))
    files = [f"{plan.results}/runs/mine/whole/seed0/timing.json"]
    assert [plan.timing(plan.rows["mine", row]) for row in ("whole", "block")] == [files, files]
    request = plan.written["runs/mine/whole/timing"]
    assert list(request["timed"]) == ["whole", "block"] and request["compared"] == "whole"
    assert "runs/mine/block/timing" not in plan.written
    assert (request["updates"], request["updates_on_cpu"], request["samples_on_cpu"]) == (100, 3, 2)
    wildcards = {"table": "mine", "row": "whole", "seed": "0"}
    sources = plan.code("timing", types.SimpleNamespace(**wildcards, keys=lambda: list(wildcards)))
    assert sources == timing_files(request)
    assert all(any(f"/{name}.py" in file for file in sources) for name in ("models/vit", "diffusionblocks", "timing"))


def test_a_row_that_asks_for_no_seconds_is_not_timed():
    plan = Plan.of(config(mine=table(metrics={"peak": {"name": "peak_memory"}})))
    assert plan.timing(plan.rows["mine", "block"]) == [] and not plan.timed_together
    counted = shipped().rows["memory", "vit_block"]
    assert not plan.timing(counted) and counted.on_a_gpu == ["per_sample", "time_factor"]
    assert {table for table, _ in shipped().timed_together} == {"table_a4", "inference"}
    assert counted.evaluation()["on_a_gpu"] == ["per_sample", "time_factor"]


def test_of_inference_chains_are_timed_and_no_updates():
    plan = Plan.of(config("gpu") | {"select": ["inference"]})
    timed = plan.written["runs/inference/dit_end_to_end_50_steps/timing"]["timed"]
    assert list(timed) == ["dit_end_to_end_50_steps", "dit_diffusionblocks_50_steps"]
    steps = {"num_steps": 50}
    assert all(about["parts"] == [] for about in timed.values())
    assert all(about["chains"] == {"per_sample": steps, "time_factor": steps} for about in timed.values())
    assert [row for table, row in shipped().timed_together if table == "inference"] == ["vit_end_to_end"], "at demo"


def test_rows_that_are_only_timed_are_not_counted(tmp_path):
    """But for one that a counted one is compared with; the page knows the size of the network all the same."""
    mine = table()
    mine["rows"]["blocks"] = {"like": "mine/block", "metrics": {"work": {"name": "work_factor"}}, "against": "whole"}
    plan = Plan.of(config(mine=mine))
    said = {row: plan.written[f"runs/mine/{row}/evaluation"].get("counted", True) for row in mine["rows"]}
    assert said == {"whole": True, "block": False, "blocks": True}
    row = plan.rows["mine", "block"]
    (tmp_path / "run.json").write_text(json.dumps(row.run(0)))
    sizes = []
    for counted in ({"counted": False}, {}):
        evaluation = {**row.evaluation(), "metrics": {}, **counted}
        count.count(tmp_path / "run.json", evaluation, tmp_path / "metrics.json")
        found = json.loads((tmp_path / "metrics.json").read_text())
        sizes.append(found["parameters"])
        assert (found["counted"] is None) == bool(counted)
    assert sizes[0] == sizes[1] > 0


def test_at_the_other_scales_memory_is_timed_too():
    plan = Plan.of(config("gpu") | {"select": ["table_a4", "memory", "recurrent_compute"]})
    together = {origin: [row.name for row in rows] for origin, rows in plan.timed_together.items()}
    assert together["memory", "vit_end_to_end"][:2] == ["vit_end_to_end", "vit_checkpointing"]
    assert together["table_a4", "vit_end_to_end_bf16"] == [
        *("vit_end_to_end_bf16", "diffusionblocks_one_block_bf16", "diffusionblocks_all_blocks_bf16")
    ]
    assert not plan.rows["memory", "vit_block"].on_a_gpu


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timing": {"update": 3}}, "rows.whole.timing: unknown key 'update'; did you mean 'updates'?"),
        ({"timing": {"updates": 0}}, "rows.whole.timing.updates: 0 should be a whole number of at least 1"),
        ({"timing": {"samples_on_cpu": "8"}}, "rows.whole.timing.samples_on_cpu: '8' should be a whole number"),
        ({"train": {"accumulate": 4}}, "samples_on_cpu: 2 is no multiple of train.accumulate, 4"),
        (
            {"metrics": {"a": {"name": "time_factor", "blocks": "two"}}},
            "metrics.a.blocks: 'two' is not one of one, all",
        ),
        (
            {"train": {"precision": "bf16"}, "metrics": {"a": {"name": "time_factor"}, "b": {"name": "work_factor"}}},
            "train.precision: updates are counted in single precision: set it to fp32, or leave this row only metrics "
            "of timed, timed_compared, timed_chain, timed_chain_compared",
        ),
        ({"train": {"compile": True}}, "train.compile: updates are counted, and timed, without the compiler"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_any_job(changes, words):
    with pytest.raises(UserError) as refused:
        Plan.of(config(mine=table(**changes)))
    assert words in str(refused.value)


def test_rows_that_are_timed_together_are_timed_alike():
    mine = table()
    mine["rows"]["block"]["timing"] = {"samples_on_cpu": 4}
    with pytest.raises(UserError, match=r"rows.block.timing: .* that of whole, with which it is compared"):
        Plan.of(config(mine=mine))


def test_what_is_trained_is_not_timed():
    row = {"like": "table1/vit_end_to_end", "timing": {"updates": 3}}
    with pytest.raises(UserError, match=r"rows.a.timing: is for tables that are `counted`"):
        Plan.of(config(mine={"title": "Mine", "demo": {}, "rows": {"a": row}}))
    row = {"like": "table1/vit_end_to_end", "metrics": {"a": {"name": "time_factor"}}}
    with pytest.raises(UserError, match="time_factor is for tables that are `counted`"):
        Plan.of(config(mine={"title": "Mine", "demo": {}, "rows": {"a": row}}))


def test_bfloat16_may_be_timed():
    metrics = {"seconds": {"name": "seconds_per_iteration"}}
    plan = Plan.of(config(mine=table(train={"precision": "bf16"}, metrics=metrics)))
    assert plan.rows["mine", "block"].run(0)["train"]["precision"] == "bf16"


@pytest.mark.slow
def test_from_a_timed_table_to_its_page(tmp_path):
    """In float32 and bfloat16, by the workflow; nothing is timed again, and a changed `timing` is."""
    printed = {"title": "Seconds", "source": "Table A4", "metrics": {"seconds": {"unit": "s", "better": "lower"}}}
    printed["rows"] = {"whole": {"seconds": 0.0507}, "block": {"seconds": 0.0181, "against": "whole"}}
    claim = {"text": "Faster.", "metric": "seconds", "row": "block", "against": "whole", "factor": 1000, "ours": True}
    mine = table(printed=printed, claims=[claim])
    mine["rows"]["late"] = {"like": "mine/whole", "timing": {"samples_on_cpu": None}, "remark": "On a GPU."}
    mine["rows"]["half"] = {"like": "mine/whole", "train": {"precision": "bf16"}, "remark": "Half."}
    copy = Checkout(tmp_path / "checkout")
    copy.configure({"tables": {"mine": mine}})
    copy.snakemake("mine", "--cores", "1")
    runs = copy.folder / "results/demo/runs/mine"
    assert sorted(path.parts[-3] for path in runs.glob("*/seed0/timing.json")) == ["half", "whole"]
    numbers = json.loads((runs / "block/seed0/metrics.json").read_text())["metrics"]
    assert numbers["factor"]["value"] > 0 and numbers["seconds"]["samples"] == 2
    half = json.loads((runs / "half/seed0/metrics.json").read_text())["metrics"]["seconds"]
    assert "bf16, torch" in half["timed"]["where"]
    page = (copy.folder / "results/demo/tables/mine.html").read_text()
    assert "0.0507" in page and "0.0181" in page and "2 samples at a time, median of 3 times in 3 turns" in page
    assert "did not hold" in page and "× <small>timed on " in page.replace("</strong>", "")
    assert "factor, seconds: timed on a GPU alone" in page and '<th scope="row">timing</th>' in page
    assert "Nothing to be done" in copy.snakemake("mine", "-n").stdout
    mine["timing"]["updates_on_cpu"] = 6
    copy.configure({"tables": {"mine": mine}})
    assert copy.planned("mine")["timing"] == 2
