localrules:
    prepare,


rule prepare:
    input:
        code=code("data.prepare"),
    output:
        f"{RESULTS}/data/{{data}}.safetensors",
    log:
        f"{RESULTS}/logs/prepare/{{data}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        # Not among the params: files at another place are no reason to prepare, and then to train, again.
        data_dir=os.path.expanduser(config["data_dir"]),
    params:
        section=section_of,
    shell:
        "python -m diffusionblocks prepare {params.section:q} --data-dir {resources.data_dir:q} -o {output} > {log} 2>&1"
