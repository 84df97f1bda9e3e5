"""The workflow as users start it: one run from config row to page, then what a change makes it do again."""

import base64
import copy
import json
import math
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, Checkout, missing_program, trainings

from diffusionblocks.verbs import PRINT, VERBS

pytestmark = pytest.mark.slow

TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "workflow/tables").glob("*.yaml")}
RUNS = "results/demo/runs/table1"
PAGES = {"page": 1, "page_of_table": 1}  # the report, and the page of the one table
SHOWN = {"table": 1, "figures": 1, "verdicts": 1, **PAGES}


@pytest.fixture
def changed(finished, tmp_path):
    """A copy of the finished checkout, to be changed."""
    return finished.copy(tmp_path / "checkout")


def row(**changes):
    """The configuration with changes to the row vit_diffusionblocks."""
    return {"tables": {"table1": {"rows": {"vit_diffusionblocks": changes}}}}


def tiny(**row_changes):
    """The tiny configuration with changes to the row vit_diffusionblocks_joint."""
    settings = copy.deepcopy(TINY)
    settings["tables"]["table1"]["rows"]["vit_diffusionblocks_joint"] = row_changes
    return settings


def test_from_config_row_to_page(finished):
    table = pd.read_csv(finished.folder / "results/demo/tables/table1.csv")
    assert {"row", "metric", "paper", "ours", "std", "seeds", "stand_in", "commit"} <= set(table.columns)
    accuracy = table[table["metric"] == "accuracy"].set_index("row")
    assert accuracy["paper"].to_dict() == {
        "vit_end_to_end": 60.25,
        "vit_shallow": pytest.approx(math.nan, nan_ok=True),
        "vit_forward_forward": 7.85,
        "vit_diffusionblocks": 59.30,
        "vit_diffusionblocks_joint": 59.30,
        "vit_forward_forward_fixed": pytest.approx(math.nan, nan_ok=True),
        "vit_forward_forward_contrastive": pytest.approx(math.nan, nan_ok=True),
    }
    assert accuracy["ours"].between(0, 100).all()
    assert (accuracy["stand_in"] == "scikit-learn digits for CIFAR-100").all()
    assert "does not say which variant gave 7.85" in accuracy.loc["vit_forward_forward", "remark"]
    # A job of its own for each block, one job where everything is trained at once.
    parts = {path.parts[-4] + "/" + path.stem for path in finished.folder.glob(f"{RUNS}/*/seed0/parts/*.safetensors")}
    blocks = {f"vit_diffusionblocks/block{block}" for block in range(3)}
    whole = {name for name in accuracy.index if name != "vit_diffusionblocks"}
    assert parts == {f"{name}/all" for name in whole} | blocks
    assert len(list(finished.folder.glob(f"{RUNS}/**/*.safetensors"))) == len(parts), "weights are kept once"
    assert not list(finished.folder.glob("results/demo/state/**/*.safetensors")), "a finished part keeps no checkpoint"


def test_page_is_one_file_with_the_table_under_its_name(finished):
    page = (finished.folder / "results/demo/report.html").read_text()
    assert '<section id="table1"' in page and "60.25" in page and "scikit-learn digits for CIFAR-100" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,60})', page)
    assert sources and all(source.startswith(("data:", "#", "https://arxiv.org/")) for source in sources)
    drawn = re.findall(r'<figure id="table1-(\S+)"', page)
    assert drawn == ["outcomes", "accuracy-chain", "losses", "partition"]


@pytest.mark.skipif(sys.platform != "linux", reason="there is a warm process on Linux only")
def test_jobs_are_run_by_the_warm_process(finished):
    said = (finished.folder / "results/demo/logs/warm.log").read_text()
    jobs = re.fullmatch(r"(\d+) jobs were run here, 0 declined\n", said)
    assert jobs and int(jobs[1]) > 2 * 9  # of seven rows, one in three blocks, at least trainings and evaluations


def test_nothing_to_do_the_second_time(finished):
    assert finished.planned("all") == {}


def test_parts_that_are_gone_are_trained_again_only_where_a_model_is_read(changed):
    for path in changed.folder.glob(f"{RUNS}/*/seed0/parts/*.safetensors"):
        path.unlink()
    assert changed.planned("all") == {}
    metrics = f"{RUNS}/vit_diffusionblocks/seed0/metrics.json"
    (changed.folder / metrics).unlink()
    assert changed.planned(metrics) == {"train": 3, "assemble": 1, "evaluate": 1}


def test_changing_a_row_retrains_that_row_only(changed):
    changed.configure(tiny(train={"lr": 0.002}))
    jobs, files = changed.plan("all")
    assert trainings(files) == [("table1", "vit_diffusionblocks_joint", "all")] and jobs["evaluate"] == 1


def test_adding_a_metric_retrains_nothing(changed):
    changed.configure(tiny(metrics={"accuracy_6_steps": {"name": "accuracy", "sampling": {"num_steps": 6}}}))
    assert changed.planned("all") == {"all": 1, "plan": 2, "evaluate": 1, **SHOWN}


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("page/page.py", {**PAGES}),
        ("page/claims.py", {**PAGES, "verdicts": 1}),
        ("page/table.py", {**PAGES, "table": 1, "figures": 1, "verdicts": 1}),
        ("page/figures.py", {**PAGES, "figures": 1}),
        ("evaluation/evaluate.py", {"evaluate": 7, **SHOWN}),
        ("methods/diffusionblocks.py", {"train": 4, "assemble": 2, "evaluate": 2, **SHOWN}),
        ("methods/forward_forward.py", {"train": 2, "assemble": 2, "evaluate": 2, **SHOWN}),
        ("models/vit.py", {"train": 9, "assemble": 7, "evaluate": 7, **SHOWN}),
        ("plan/check.py", {}),
        ("data/images/sources/cifar.py", {}),
        ("diffusion/partitions/uniform.py", {}),
        ("evaluation/metrics/language.py", {}),
    ],
)
def test_an_edit_reruns_what_it_can_affect_and_nothing_else(changed, file, rules):
    path = changed.folder / "diffusionblocks" / file
    path.write_text(path.read_text() + "\n# edited\n")
    assert changed.planned("all") == ({"all": 1} | rules if rules else {})
    changed.configure({**TINY, "track_code": False})
    assert "train" not in changed.planned("all")


def test_claims_are_printed_again_without_work(finished):
    told = finished.snakemake("claims").stdout
    assert "Table 1, section 5.1: A ViT whose three blocks" in told and "At scale demo" in told
    assert finished.planned("claims") == {"claims": 1}


def test_one_table_by_its_name(changed):
    shutil.rmtree(changed.folder / "results/demo/tables")
    changed.snakemake("table1")
    assert (changed.folder / "results/demo/tables/table1.csv").exists()
    assert '<section id="table1"' in (changed.folder / "results/demo/tables/table1.html").read_text()
    changed.snakemake("results/demo/tables/table1-claims.json")
    claims = json.loads((changed.folder / "results/demo/tables/table1-claims.json").read_text())["claims"]
    assert {claim["table"] for claim in claims} == {"table1"}


def test_target_rules_explain_themselves(fresh):
    listed = dict(re.findall(r"^(\w+)(?: \((.*)\))?$", fresh.snakemake("--list-target-rules").stdout, re.MULTILINE))
    assert {"all", "ablation_partitioning", "ablation_block_count", *TABLES} <= set(listed)
    assert all(len(words) > 20 for words in listed.values()), listed
    assert "table8 and table_a2" in listed["ablation_block_count"]


# 99 trainings: table 1's nine parts by three seeds, table 2's networks of 1, 1, 3, 1 and 3 parts, table 7's 36, and
# 2 + 3 + 4 + 6 of table 8 and 2 + 4 + 6 of table A2, whose other rows are borrowed. 3 + 12 + 3 trained rows generate
# images of CIFAR-10, and 2 + 4 of ImageNet, at paper scale in 10 jobs; each with its averaged and its last weights.
# Table 6's networks have six times 1 and 3 parts, table A1's 1, 1 and 2, at scale paper with three seeds.
# 46 of texts: 1 + 1 + 3 of table 3, 1 + 1 + 4 + 4 + 4 and 1 + 4 of table 4, three of table 5, 2 + 3 + 4 + 6 + 4 of
# table A3. Their 18 rows are sampled, and the block-wise ones of table 4's LM1B and of table A3 with 16 levels too.
SCALES = {
    "demo": {"prepare": 2 + 3, "extractor": 2, "reference": 2, "teacher": 4},
    "gpu": {
        "prepare": 1 + 3,
        "extractor": 1,
        "reference": 1,
        "teacher": 4,
        "train": 3 * 141,
        "sample": 3 * (2 * (18 + 7) + 18 + 8),
    },
    "paper": {
        **{
            "prepare": 4 + 3,
            "extractor": 2 * 2,  # of CIFAR-10 and of ImageNet, by both ways of resizing
            "reference": 2 * 2,
            "teacher": 6,
            "train": 3 * (33 + 9 + 4) + 47,  # tables 1, 6, 7, A1 and A2 with three seeds
            "encode": 32,
        },
        "sample": 2 * (18 + 7 * 10) + 18 + 8,
    },
}


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_plans(fresh, scale):
    jobs, files = fresh.plan("all", "--config", f"scale={scale}")
    rows = {(name, row) for name in TABLES for row, own in TABLES[name]["rows"].items() if isinstance(own, dict)}
    counted = {(name, row) for name, row in rows if "counted" in TABLES[name]}
    assert {(table, row) for table, row, _ in trainings(files)} == rows - counted and jobs["count"] == len(counted)
    assert SCALES[scale].items() <= jobs.items() and ("encode" in jobs) == (scale == "paper")
    assert len(set(files)) == len(files)


def planned_jobs(output):
    """{rule: what a dry run says of each of its jobs}."""
    found = {}
    for rule, text in re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)+)", output, re.MULTILINE):
        found.setdefault(rule, []).append(text)
    return found


def test_the_slurm_profile_runs_the_paper_and_gives_a_gpu_to_each_job_on_a_node(fresh):
    jobs = planned_jobs(fresh.snakemake("--profile", "slurm", "all", "-n", configfile=None).stdout)
    gpu = {rule for rule, texts in jobs.items() if all("gpu=1" in text for text in texts)}
    assert gpu == {"train", "encode", "sample", "reference", "evaluate", "timing"}
    rules = "".join(file.read_text() for file in (fresh.folder / "rules").glob("*.smk"))
    local = set(re.findall(r"\w+", "".join(re.findall(r"^localrules:\n((?:    .*\n)+)", rules, re.MULTILINE))))
    asked_for = {"doctor", "estimate", "claims", "verdicts_of_table", "exports", "compare"}
    assert set(jobs) - gpu - {"all"} == local - asked_for
    assert {"autoencoder", "extractor"} <= local, "they download, and nodes may have no internet"
    assert all("results/paper/" in text for text in jobs["train"])
    trial = fresh.snakemake("--profile", "slurm", "table1", "-n", "--config", "scale=demo", configfile=None)
    assert "results/demo/runs" in trial.stdout and "results/paper/runs" not in trial.stdout


@pytest.mark.parametrize(("profile", "scale"), [("slurm", "paper"), ("workflow/profiles/gpu", "gpu")])
@pytest.mark.parametrize("own", [["--configfile", "tiny.yaml"], ["--config", "seeds=[0]"]])
def test_the_scale_of_a_profile_survives_a_file_or_a_setting_of_the_users(fresh, profile, scale, own):
    planned = fresh.snakemake("--profile", profile, "table1", "-n", *own, configfile=None).stdout
    assert f"results/{scale}/runs" in planned and "results/demo" not in planned


def test_a_scale_that_the_command_line_would_lose_is_refused(fresh):
    own = ["--configfile", "tiny.yaml", "--config", "seeds=[0]"]
    refused = fresh.snakemake("--profile", "slurm", "table1", "-n", *own, configfile=None, check=False)
    assert refused.returncode and "slurm is for scale paper" in refused.stdout + refused.stderr
    planned = fresh.snakemake("--profile", "slurm", "table1", "-n", *own, "scale=paper", configfile=None).stdout
    assert "results/paper/runs" in planned


def test_the_gpu_profile_runs_one_job_on_the_gpu_at_a_time(fresh):
    jobs = planned_jobs(fresh.snakemake("--profile", "workflow/profiles/gpu", "all", "-n", configfile=None).stdout)
    gpu = {rule for rule, texts in jobs.items() if all("gpu=1" in text for text in texts)}
    assert gpu == {"train", "sample", "reference", "evaluate", "timing"}
    assert all("results/gpu/" in text for text in jobs["train"])


def test_snakemake_report_works_too(finished):
    finished.snakemake("--report", "snakemake-report.html")
    text = (finished.folder / "snakemake-report.html").read_text()
    assert "table1.csv" in text
    (page,) = re.findall(r"filename=report\.html;base64,([\w+/=]+)", text)
    assert base64.b64decode(page) == (finished.folder / "results/demo/report.html").read_bytes()


def test_a_run_is_set_beside_another(finished, tmp_path):
    shutil.copytree(finished.folder / "results/demo/tables", tmp_path / "other/tables")
    shutil.copy(finished.folder / "results/demo/plan.json", tmp_path / "other")
    csv = tmp_path / "other/tables/table1.csv"
    csv.write_text(csv.read_text().replace("vit_shallow", "vit_deep"))
    text = finished.snakemake("compare", "--config", f"with={tmp_path}/other").stdout
    assert "Missing: table1/vit_deep\nNew: table1/vit_shallow\n" in text and " 0 outside, " in text
    assert set(pd.read_csv(finished.folder / "results/demo/compare.csv")["verdict"]) == {"within", "missing", "new"}
    refused = finished.snakemake("compare", check=False)
    assert refused.returncode and "config: with: names no folder to compare with" in refused.stdout + refused.stderr


def test_a_run_is_exported_when_it_is_asked_for(finished):
    finished.snakemake("exports")
    folder = finished.folder / "results/demo/exports"
    named = {about["@id"] for about in json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]}
    assert {"tables/table1.tex", "tables/table1.csv", "report.html", "claims.json", "plan.json"} <= named
    assert r"\toprule" in (folder / "tables/table1.tex").read_text()
    assert list((folder / "figures").glob("*.pdf"))


def test_a_failed_training_shows_its_reason_and_leaves_no_output(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    checkout.configure(tiny(train={"lr": 1.0e30, "warmup_steps": 0, "log_every": 1}))
    target = f"{RUNS}/vit_diffusionblocks_joint/seed0/metrics.json"
    failed = checkout.snakemake(target, check=False)
    assert failed.returncode != 0
    assert re.search(
        r"error: .*step \d+, block \d, sigma .*Lower train\.lr \(now 1e\+30\)", failed.stdout + failed.stderr
    )
    assert not list(checkout.folder.glob("results/**/parts/*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sclae": "demo"}, ["sclae"]),
        (row(method={"num_bloks": 3}), ["num_bloks", "num_blocks"]),
        ({"tables": {"table1": {"demo": {"train": {"lr": "1e-3"}}}}}, ["lr", "1e-3"]),
        (row(demo={"model": {"num_layers": 13}, "method": {"layers_per_block": [4, 4, 4]}}),
         ["layers_per_block [4, 4, 4]", "12, not 13"]),
        (row(method={"num_blocks": 7}), ["num_blocks is 7", "6 layers"]),
    ],
)  # fmt: skip
def test_bad_configuration_stops_before_the_first_job(tmp_path, change, words):
    checkout = Checkout(tmp_path / "checkout")
    checkout.configure(change)
    refused = checkout.snakemake("all", check=False)
    assert refused.returncode != 0 and all(word in refused.stdout + refused.stderr for word in words), refused.stderr
    assert not (checkout.folder / "results").exists()


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^make (\w+)", readme, re.MULTILINE))
    lines = re.findall(r"^(\w[\w ]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= targets <= {target for line in lines for target in line.split()}
    tables = TABLES
    known = {"all", *tables, *(about.get("alias") for about in tables.values())}
    for file in (ROOT / "workflow/studies").glob("*.yaml"):
        studied = yaml.safe_load(file.read_text())["tables"]
        known |= studied.keys() | {about.get("alias") for about in studied.values()}
    rules = "".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    known |= set(re.findall(r"^(?:rule|checkpoint) (\w+):", rules, re.MULTILINE))
    assert {"table7", "ablation_block_count"} <= set(re.findall(r"^snakemake (\w+)", readme, re.MULTILINE)) <= known
    assert "snakemake --profile slurm all" in readme
    verbs = {function.__name__.rstrip("_") for function in VERBS | PRINT}
    assert {"explain", "verify"} <= set(re.findall(r"python -m diffusionblocks (\w+)", readme)) <= verbs


def test_pins_agree():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    environment = yaml.safe_load((ROOT / "envs/diffusionblocks.yaml").read_text())
    for requirement in environment["dependencies"][-1]["pip"]:
        name, version = requirement.split("==")
        assert pins[name] == version
    declared = re.findall(r'"([\w-]+)[><=]', (ROOT / "pyproject.toml").read_text())
    assert set(pins) == set(declared) - {"setuptools"}


@pytest.mark.parametrize(("checkout", "page"), [("finished", "report.html"), ("generated", "tables/table2.html")])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_the_screen(request, tmp_path, checkout, page, width):
    """Only tables may scroll sideways, and inside their own box. Measured by a real browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        missing_program("no Chromium found; install it with: apt-get install chromium", "REQUIRE_BROWSER")
    page = (request.getfixturevalue(checkout).folder / "results/demo" / page).read_text()
    # A frame of the given width, since a headless window cannot be made as narrow as a phone.
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "frame.html").write_text(
        f'<iframe src="page.html" width="{width}" height="800" style="border:0"></iframe><script>onload = () => {{'
        "const inner = document.querySelector('iframe').contentDocument;"
        "inner.querySelectorAll('details').forEach(part => part.open = true);"
        "const figures = [...inner.querySelectorAll('figure svg')];"
        "const seen = figure => figure.getBoundingClientRect().width >= 200 && figure.getBBox().width > 0;"
        "document.title = `wide ${inner.documentElement.scrollWidth} figures ${figures.length} broken `"
        "+ figures.filter(figure => !seen(figure)).length}</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--allow-file-access-from-files"]  # fmt: skip
    done = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000", "--dump-dom",
         (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>wide (\d+) figures (\d+) broken (\d+)</title>", done.stdout)
    wide, figures, broken = map(int, found.groups())
    assert wide <= width and figures >= 4 and broken == 0


def test_an_architecture_of_the_users_own(tmp_path):
    """The module and the rows of docs/extending.md, as they stand there, from a folder beside the package."""
    checkout = Checkout(tmp_path / "checkout")
    page = (ROOT / "docs/extending.md").read_text()
    code, rows = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("python", "yaml"))
    (checkout.folder / "my_nets").mkdir()
    (checkout.folder / "my_nets/mlp.py").write_text(code)
    settings = {"seeds": [0], "tables": {"table1": {"demo": {"train": {"steps": 100}}, "rows": yaml.safe_load(rows)}}}
    checkout.configure(settings)
    metrics = [f"{RUNS}/mlp_{method}/seed0/metrics.json" for method in ("end_to_end", "diffusionblocks")]
    checkout.snakemake(*metrics)
    for file in metrics:
        assert json.loads((checkout.folder / file).read_text())["metrics"]["accuracy"]["value"] > 50  # chance is 10
    module = checkout.folder / "my_nets/mlp.py"
    module.write_text(code.replace("def to_z", "def to_zz"))
    refused = checkout.snakemake("all", "-n", check=False)
    assert refused.returncode != 0 and "lacks to_z" in refused.stdout + refused.stderr
