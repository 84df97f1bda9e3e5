localrules:
    extractor,
    teacher,


rule sample:
    input:
        run=f"{RESULTS}/{RUN}/run.json",
        model=f"{RESULTS}/{RUN}/model.safetensors",
        data=data_of,
        code=code("sampling.sample"),
    output:
        f"{RESULTS}/{RUN}/samples/{{sampling}}/{{shard}}.safetensors",
    log:
        f"{RESULTS}/logs/{RUN}/sample-{{sampling}}-{{shard}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=os.path.expanduser(config["data_dir"]),
    params:
        sampling=sampling_of,
    shell:
        "python -m diffusionblocks sample {input.run} {input.model} {params.sampling:q} {wildcards.shard}"
        " --data {input.data} --data-dir {resources.data_dir:q} -o {output} > {log} 2>&1"


# Not on a node of a cluster, which may have no internet: some weights are downloaded.
rule extractor:
    input:
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("scorers.extractor"),
    output:
        f"{RESULTS}/features/{{data}}/{{extractor}}/weights.safetensors",
    log:
        f"{RESULTS}/logs/features/{{data}}-{{extractor}}-weights.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=os.path.expanduser(config["data_dir"]),
    params:
        section=extractor_of,
    shell:
        "python -m diffusionblocks extractor {params.section:q} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


rule reference:
    input:
        weights=f"{RESULTS}/features/{{data}}/{{extractor}}/weights.safetensors",
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("scorers.reference"),
    output:
        f"{RESULTS}/features/{{data}}/{{extractor}}/reference.safetensors",
    log:
        f"{RESULTS}/logs/features/{{data}}-{{extractor}}-reference.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=os.path.expanduser(config["data_dir"]),
    shell:
        "python -m diffusionblocks reference {input.weights} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


# As the extractor: some weights are downloaded, none takes long.
rule teacher:
    input:
        data=f"{RESULTS}/data/{{data}}.safetensors",
        code=code("scorers.teacher"),
    output:
        f"{RESULTS}/teachers/{{data}}/{{teacher}}.safetensors",
    log:
        f"{RESULTS}/logs/teachers/{{data}}-{{teacher}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=os.path.expanduser(config["data_dir"]),
    params:
        section=teacher_of,
    shell:
        "python -m diffusionblocks teacher {params.section:q} --data {input.data} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


rule evaluate:
    input:
        run=f"{RESULTS}/{RUN}/run.json",
        model=f"{RESULTS}/{RUN}/model.safetensors",
        losses=parts_of(".jsonl"),
        data=data_of,
        samples=samples_of,
        scorers=scorers_of,
        code=code("evaluation.evaluate"),
    output:
        f"{RESULTS}/{RUN}/metrics.json",
    log:
        f"{RESULTS}/logs/{RUN}/evaluate.log",
    conda:
        "../envs/diffusionblocks.yaml"
    params:
        metrics=metrics_section,
    shell:
        "python -m diffusionblocks evaluate {input.run} {input.model} {params.metrics:q} --data {input.data}"
        " --logs {input.losses} --samples {input.samples} --scorers {input.scorers} -o {output} > {log} 2>&1"
