localrules:
    prepare,


rule prepare:
    input:
        code=code("data.prepare"),
    output:
        f"{RESULTS}/data/{{data}}.safetensors",
    params:
        section=section_of,
    log:
        f"{RESULTS}/logs/prepare/{{data}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    shell:
        "python -m diffusionblocks prepare {params.section:q} --data-dir {config[data_dir]:q} -o {output} > {log} 2>&1"
