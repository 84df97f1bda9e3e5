rule evaluate:
    input:
        run=f"{RESULTS}/{RUN}/run.json",
        model=f"{RESULTS}/{RUN}/model.safetensors",
        losses=parts_of(".jsonl"),
        data=data_of,
        code=code("evaluate"),
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
        " --logs {input.losses} -o {output} > {log} 2>&1"
