localrules:
    plan,
    assemble,


rule plan:
    output:
        f"{RESULTS}/{RUN}/run.json",
    log:
        f"{RESULTS}/logs/{RUN}/plan.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        run=run_json,
    shell:
        "python -m diffusionblocks plan {params.run:q} -o {output} > {log} 2>&1"


# A killed job loses its outputs but not its state folder, from which the next attempt goes on.
rule train:
    input:
        run=f"{RESULTS}/{RUN}/run.json",
        data=data_of,
        code=code("training.train"),
    output:
        weights=f"{RESULTS}/{RUN}/parts/{{part}}.safetensors",
        losses=f"{RESULTS}/{RUN}/parts/{{part}}.jsonl",
    log:
        f"{RESULTS}/logs/{RUN}/train-{{part}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        state=f"{RESULTS}/state/{{table}}/{{row}}/seed{{seed}}/{{part}}",
    shell:
        "python -m diffusionblocks train {input.run} {wildcards.part} --data {input.data}"
        " --state {params.state} -o {output.weights} >> {log} 2>&1"


rule assemble:
    input:
        run=f"{RESULTS}/{RUN}/run.json",
        parts=parts_of(".safetensors"),
        code=code("training.assemble"),
    output:
        f"{RESULTS}/{RUN}/model.safetensors",
    log:
        f"{RESULTS}/logs/{RUN}/assemble.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks assemble {input.run} {input.parts} -o {output} > {log} 2>&1"
