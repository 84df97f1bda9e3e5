localrules:
    table,
    page,
    page_of_table,


rule table:
    input:
        metrics=lambda wildcards: metrics_of([wildcards.table]),
        paper="report/paper.yaml",
        code=code("page.table"),
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
    params:
        rows=rows_of,
    shell:
        "python -m diffusionblocks table {wildcards.table} {params.rows:q} --paper {input.paper} -o {output} > {log} 2>&1"


rule page:
    """The report of all tables, as `all` makes it."""
    input:
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        metrics=metrics_of(TABLES),
        template="report/page.html.jinja",
        style="report/style.css",
        claims="report/claims.yaml",
        code=code("page.page"),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks report --tables {input.tables} --metrics {input.metrics}"
        " --template {input.template} --claims {input.claims} -o {output} > {log} 2>&1"


# The same page with one table alone, for a table that was asked for by its name.
use rule page as page_of_table with:
    input:
        tables=f"{RESULTS}/tables/{{table}}.csv",
        metrics=lambda wildcards: metrics_of([wildcards.table]),
        template="report/page.html.jinja",
        style="report/style.css",
        claims="report/claims.yaml",
        code=code("page.page"),
    output:
        f"{RESULTS}/tables/{{table}}.html",
    log:
        f"{RESULTS}/logs/tables/{{table}}-page.log",


for name in TABLES:

    rule:
        name:
            name
        input:
            f"{RESULTS}/tables/{name}.csv",
            f"{RESULTS}/tables/{name}.html",

    workflow.get_rule(name).docstring = f"{config['tables'][name]['title']}."


for name, members in planning.aliases(config).items():

    rule:
        name:
            name
        input:
            expand(
                f"{RESULTS}/tables/{{table}}.{{kind}}",
                table=members,
                kind=("csv", "html"),
            ),

    workflow.get_rule(name).docstring = f"Another name for {' and '.join(members)}."
