localrules:
    autoencoder,
    prepare,


rule autoencoder:
    """The autoencoder of latents, fetched here since the jobs that encode may run where there is no internet."""
    output:
        f"{RESULTS}/data/autoencoder.json",
    log:
        f"{RESULTS}/logs/data/autoencoder.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks autoencoder --data-dir {resources.data_dir:q} -o {output} > {log} 2>&1"


# ImageNet's images become latents once, for all rows; only a data set with the keyword `shards` asks for this rule.
rule encode:
    input:
        section=f"{RESULTS}/data/{{data}}/source.json",
        autoencoder=f"{RESULTS}/data/autoencoder.json",
        code=code("encode"),
    output:
        f"{RESULTS}/data/{{data}}/shard{{shard}}.safetensors",
    log:
        f"{RESULTS}/logs/encode/{{data}}/shard{{shard}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks encode {input.section} {wildcards.shard} --data-dir {resources.data_dir:q}"
        " -o {output} > {log} 2>&1"


rule prepare:
    input:
        section=f"{RESULTS}/data/{{data}}/source.json",
        shards=PLAN.shards_of,
        code=code("prepare"),
    output:
        f"{RESULTS}/data/{{data}}.safetensors",
    log:
        f"{RESULTS}/logs/prepare/{{data}}.log",
    conda:
        "../envs/diffusionblocks.yaml"
    resources:
        # Not among the params: files at another place are no reason to prepare, and then to train, again.
        data_dir=DATA_DIR,
    shell:
        "python -m diffusionblocks prepare {input.section} --data-dir {resources.data_dir:q}"
        " --shards {input.shards} -o {output} > {log} 2>&1"
