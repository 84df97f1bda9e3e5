"""What jobs ask SLURM for at scale paper: enough for what they do, set in one file."""

import re
from collections import Counter

PROFILE = "workflow/profiles/slurm/profile.v9+.yaml"


def asked(checkout):
    """{rule: [(wildcards, number of input files, resources)] of every planned job}, through the SLURM profile."""
    output = checkout.snakemake("-n", "all", "--profile", "slurm", configfile=None).stdout
    found = {}
    for rule, text in re.findall(r"^rule (\w+):\n((?: +.+\n)+)", output, re.MULTILINE):
        about = dict(re.findall(r"^ +(\w+): (.+)$", text, re.MULTILINE))
        resources = dict(item.split("=", 1) for item in about["resources"].split(", "))
        found.setdefault(rule, []).append((about.get("wildcards", ""), about.get("input", ""), resources))
    return found


def test_jobs_ask_for_what_they_need(tmp_path, fresh):
    checkout = fresh.copy(tmp_path / "checkout")
    profile = checkout.folder / PROFILE
    profile.write_text(profile.read_text().replace("  evaluate:\n", "  evaluate:\n    gpu_model: a100\n"))
    jobs = asked(checkout)

    def amounts(rule):
        return Counter((each["gpu"], int(each["mem_mb"]), int(each["runtime"])) for _, _, each in jobs[rule])

    # A pass over a test set is minutes of a GPU and little memory; teachers and extractors need more of both.
    assert amounts("evaluate") == {("1", 8000, 30): 54, ("1", 32000, 120): 40}
    for wildcards, files, resources in jobs["evaluate"]:
        light = re.match(r"table=table(1|3|6|_a1),", wildcards) is not None
        assert light == (resources["mem_mb"] == "8000") == (not re.search("features/|teachers/", files)), wildcards
    assert all(each["gpu_model"] == "a100" for _, _, each in jobs["evaluate"]), "one line for a whole stage"
    assert not any("gpu_model" in each for _, _, each in jobs["train"] + jobs["sample"])
    assert amounts("train") == {("1", 32000, 720): 114, ("1", 32000, 2880): 71}
    samplings = Counter(re.match(r"table=(\w+), row=(\w+)", wildcards).groups() for wildcards, _, _ in jobs["sample"])
    # Of texts, and of images with averaged and with last weights; ImageNet's in ten jobs each.
    assert set(samplings.values()) == {1, 2, 20} and sum(samplings.values()) == 26 + 2 * (18 + 7 * 10)
