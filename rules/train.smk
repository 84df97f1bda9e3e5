localrules:
    assemble,


# A killed job loses its outputs but not its state folder, from which the next attempt goes on.
rule train:
    input:
        run=f"{RUN}/run.json",
        data=data_of,
        code=code("train"),
    output:
        weights=f"{RUN}/parts/{{part}}.safetensors",
        losses=f"{RUN}/parts/{{part}}.jsonl",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/train-{{part}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        state=f"{RESULTS}/state/{{table}}/{{row}}/seed{{seed}}/{{part}}",
    shell:
        "python -m diffusionblocks train {input.run} {wildcards.part} --data {input.data}"
        " --state {params.state} -o {output.weights} >> {log} 2>&1"


rule assemble:
    input:
        run=f"{RUN}/run.json",
        parts=lambda wildcards: PLAN.row(wildcards).part_files(
            wildcards.seed, ".safetensors"
        ),
        code=code("assemble"),
    output:
        f"{RUN}/model.safetensors",
    log:
        f"{RESULTS}/logs/runs/{{table}}/{{row}}/seed{{seed}}/assemble.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        code="same" if PLAN.config["track_code"] else "any",
    shell:
        "python -m diffusionblocks assemble {input.run} {input.parts} --code {resources.code} -o {output} > {log} 2>&1"
