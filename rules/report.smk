localrules:
    table,
    figures,
    page,
    page_of_table,
    verdicts,
    verdicts_of_table,
    claims,
    exports,
    compare,


rule table:
    input:
        plan=f"{RESULTS}/tables/{{table}}.json",
        metrics=lambda wildcards: PLAN.metrics_of([wildcards.table]),
        code=code("table"),
    output:
        report(
            f"{RESULTS}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{RESULTS}/logs/tables/{{table}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks table {input.plan} -o {output} > {log} 2>&1"


rule figures:
    """Drawn once, as soon as a table is measured, for the page of all tables and for its own."""
    input:
        plan=f"{RESULTS}/tables/{{table}}.json",
        metrics=lambda wildcards: PLAN.metrics_of([wildcards.table]),
        code=code("figures"),
    output:
        f"{RESULTS}/tables/{{table}}-figures.json",
    log:
        f"{RESULTS}/logs/tables/{{table}}-figures.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks figures {input.plan} -o {output} > {log} 2>&1"


ESTIMATE = f"{RESULTS}/estimate.json"  # there once someone has asked for it
PARTS = sorted(str(path) for path in Path("report").iterdir() if path.suffix != ".rst")


rule page:
    """The report of all tables, as `all` makes it."""
    input:
        plans=expand(f"{RESULTS}/tables/{{table}}.json", table=PLAN.tables),
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=PLAN.tables),
        figures=expand(f"{RESULTS}/tables/{{table}}-figures.json", table=PLAN.tables),
        metrics=PLAN.metrics_of(PLAN.tables),
        template="report/page.html.jinja",
        parts=PARTS,
        estimate=[ESTIMATE] if os.path.exists(ESTIMATE) else [],
        code=code("page"),
    output:
        report(
            f"{RESULTS}/report.html", caption="../report/page.rst", category="Report"
        ),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks page {input.plans} --tables {input.tables} --figures {input.figures}"
        " --template {input.template} --estimate {input.estimate} -o {output} > {log} 2>&1"


# The same page with one table alone, for a table that was asked for by its name.
use rule page as page_of_table with:
    input:
        plans=f"{RESULTS}/tables/{{table}}.json",
        tables=f"{RESULTS}/tables/{{table}}.csv",
        figures=f"{RESULTS}/tables/{{table}}-figures.json",
        metrics=lambda wildcards: PLAN.metrics_of([wildcards.table]),
        template="report/page.html.jinja",
        parts=PARTS,
        estimate=[ESTIMATE] if os.path.exists(ESTIMATE) else [],
        code=code("page"),
    output:
        f"{RESULTS}/tables/{{table}}.html",
    log:
        f"{RESULTS}/logs/tables/{{table}}-page.log",


rule verdicts:
    """What became of the claims of all tables."""
    input:
        plans=expand(f"{RESULTS}/tables/{{table}}.json", table=PLAN.tables),
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=PLAN.tables),
        metrics=PLAN.metrics_of(PLAN.tables),
        code=code("verdicts"),
    output:
        f"{RESULTS}/claims.json",
    log:
        f"{RESULTS}/logs/claims.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks verdicts {input.plans} --tables {input.tables} -o {output} > {log} 2>&1"


use rule verdicts as verdicts_of_table with:
    input:
        plans=f"{RESULTS}/tables/{{table}}.json",
        tables=f"{RESULTS}/tables/{{table}}.csv",
        metrics=lambda wildcards: PLAN.metrics_of([wildcards.table]),
        code=code("verdicts"),
    output:
        f"{RESULTS}/tables/{{table}}-claims.json",
    log:
        f"{RESULTS}/logs/tables/{{table}}-claims.log",


rule claims:
    """What became of every claim, printed: of all tables, or of those that --config select names."""
    input:
        f"{RESULTS}/claims.json",
    log:
        f"{RESULTS}/logs/claims-printed.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks claims {input} 2>&1 | tee {log}"


rule exports:
    """For papers and archives: tables as LaTeX and csv, figures as PDF and SVG, an RO-Crate of the run."""
    input:
        plans=expand(f"{RESULTS}/tables/{{table}}.json", table=PLAN.tables),
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=PLAN.tables),
        copied=[f"{RESULTS}/report.html", f"{RESULTS}/claims.json"],
        metrics=PLAN.metrics_of(PLAN.tables),
        code=code("exports"),
    output:
        directory(f"{RESULTS}/exports"),
    log:
        f"{RESULTS}/logs/exports.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        plan=f"{RESULTS}/plan.json",  # written at the start of every workflow
    shell:
        "python -m diffusionblocks exports {input.plans} --tables {input.tables} --settings {params.plan}"
        " --copied {input.copied} -o {output} > {log} 2>&1"


rule compare:
    """This run, finished or not, beside another (`--config with=docs/results/laptop`): what moved beyond its spread."""
    log:
        f"{RESULTS}/logs/compare.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        results=RESULTS,
        other=PLAN.config.get("with") or "",
    shell:
        "python -m diffusionblocks compare {params.results} {params.other:q} --output {params.results}/compare.csv"
        " 2>&1 | tee {log}"


# A target for each table and each alias, by its name.
for name, members, words in PLAN.targets():

    rule:
        name:
            name
        input:
            PLAN.pages_of(members),

    workflow.get_rule(name).docstring = words
