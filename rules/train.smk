localrules:
    assemble,


STATE = f"{RESULTS}/state/{{table}}/{{row}}/seed{{seed}}"


# A killed job loses its outputs but not its state folder, from which the next attempt goes on. `exec`: no shell stands
# between Snakemake and the trainer, which would die of the signal that asks the trainer to save, and take it along.
rule train:
    input:
        run=f"{RUN}/run.json",
        data=data_of,
        nodes=ancient(f"{RESULTS}/nodes.txt"),
        # The model that it starts from, and what that is read from.
        start=lambda wildcards: PLAN.row(wildcards).start_files(wildcards.seed)[:1],
        started=lambda wildcards: PLAN.row(wildcards).start_files(wildcards.seed)[1:],
        code=code("train"),
    output:
        weights=f"{RUN}/parts/{{part}}.safetensors",
        losses=f"{RUN}/parts/{{part}}.jsonl",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/train-{{part}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        code="same" if PLAN.config["track_code"] else "any",
    params:
        state=f"{STATE}/{{part}}",
        # A number that comes of resources is no reason to train again.
        processes=lambda wildcards, resources: or_stop(
            PLAN.row(wildcards).processes, resources
        ),
    shell:
        "exec python -m diffusionblocks train {input.run} {wildcards.part} --data {input.data} --state {params.state}"
        " --start {input.start} --code {resources.code} --processes {params.processes} -o {output.weights} >> {log} 2>&1"


# It has the last word on the parts; only then are their checkpoints deleted.
rule assemble:
    input:
        run=f"{RUN}/run.json",
        parts=lambda wildcards: PLAN.row(wildcards).part_files(
            wildcards.seed, ".safetensors"
        ),
        code=code("assemble"),
    output:
        f"{RUN}/model.json",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/assemble.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        code="same" if PLAN.config["track_code"] else "any",
    params:
        state=STATE,
    shell:
        "python -m diffusionblocks assemble {input.run} {input.parts} --state {params.state} --code {resources.code}"
        " -o {output} > {log} 2>&1"
