from snakemake.utils import min_version

min_version("9.27")


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/plan.smk"
include: "rules/data.smk"
include: "rules/doctor.smk"
include: "rules/estimate.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    """Every table at the configured scale, and the report of all of them."""
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/claims.json",
        PLAN.pages_of(PLAN.tables),


for each in workflow.rules:
    each.priority = PLAN.priority
