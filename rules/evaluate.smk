localrules:
    extractor,
    teacher,
    count,


rule sample:
    input:
        run=f"{RUN}/run.json",
        model=lambda wildcards: PLAN.row(wildcards).model_files(wildcards.seed),
        sampling=f"{RESULTS}/runs/{{table}}/{{row}}/samples/{{sampling}}.json",
        data=data_of,
        code=code("sample"),
    output:
        f"{RUN}/samples/{{sampling}}/{{shard}}.safetensors",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/sample-{{sampling}}-{{shard}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks sample {input.run} {input.model[0]} {input.sampling} {wildcards.shard}"
        " --data {input.data} --data-dir {resources.data_dir:q} -o {output} > {log} 2>&1"


# Not on a node of a cluster, which may have no internet: some weights are downloaded.
rule extractor:
    input:
        section=f"{RESULTS}/features/{{data}}/{{extractor}}/extractor.json",
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("extractor"),
    output:
        f"{RESULTS}/features/{{data}}/{{extractor}}/weights.safetensors",
    log:
        f"{RESULTS}/logs/features/{{data}}-{{extractor}}-weights.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks extractor {input.section} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


rule reference:
    input:
        weights=f"{RESULTS}/features/{{data}}/{{extractor}}/weights.safetensors",
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("reference"),
    output:
        f"{RESULTS}/features/{{data}}/{{extractor}}/reference.safetensors",
    log:
        f"{RESULTS}/logs/features/{{data}}-{{extractor}}-reference.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks reference {input.weights} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


# As the extractor: some weights are downloaded, none takes long.
rule teacher:
    input:
        section=f"{RESULTS}/teachers/{{data}}/{{teacher}}.json",
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("teacher"),
    output:
        f"{RESULTS}/teachers/{{data}}/{{teacher}}.safetensors",
    log:
        f"{RESULTS}/logs/teachers/{{data}}-{{teacher}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks teacher {input.section} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


# Seconds of an update, of all rows that are compared with one; they take turns in one process.
rule timing:
    input:
        asked=f"{RESULTS}/runs/{{table}}/{{row}}/timing.json",
        code=code("timing"),
    output:
        f"{RUN}/timing.json",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/timing.log",
    wildcard_constraints:
        table=PLAN.counted,
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks timing {input.asked} -o {output} > {log} 2>&1"


# Of tables whose rows are not trained. It takes seconds and no GPU, so it is done where Snakemake runs.
rule count:
    input:
        run=f"{RUN}/run.json",
        evaluation=f"{RESULTS}/runs/{{table}}/{{row}}/evaluation.json",
        compared=lambda wildcards: PLAN.compared(PLAN.row(wildcards)),
        timing=lambda wildcards: PLAN.timing(PLAN.row(wildcards)),
        code=code("count"),
    output:
        f"{RUN}/metrics.json",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/count.log",
    wildcard_constraints:
        table=PLAN.counted,
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks count {input.run} {input.evaluation} --compared {input.compared}"
        " --timing {input.timing} -o {output}"
        " > {log} 2>&1"


rule evaluate:
    input:
        run=f"{RUN}/run.json",
        model=lambda wildcards: PLAN.row(wildcards).model_files(wildcards.seed),
        evaluation=f"{RESULTS}/runs/{{table}}/{{row}}/evaluation.json",
        losses=lambda wildcards: PLAN.row(wildcards).part_files(
            wildcards.seed, ".jsonl"
        ),
        data=data_of,
        samples=lambda wildcards: PLAN.row(wildcards).sample_files(wildcards.seed),
        scorers=lambda wildcards: PLAN.row(wildcards).scorer_files(),
        code=code("evaluate"),
    output:
        f"{RUN}/metrics.json",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/evaluate.log",
    wildcard_constraints:
        table=rf"(?!(?:{PLAN.counted})/)\w+",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks evaluate {input.run} {input.model[0]} {input.evaluation} --data {input.data}"
        " --logs {input.losses} --samples {input.samples} --scorers {input.scorers} -o {output} > {log} 2>&1"
