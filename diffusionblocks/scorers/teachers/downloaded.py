"""The paper's pretrained teachers (appendix E.4), from the user's folders or the hub."""

import torch

from diffusionblocks.scorers import pretrained
from diffusionblocks.scorers.teachers.base import Teacher


def gpt2_large() -> Teacher:
    """GPT-2 large: the 1,280 features of MAUVE's authors."""
    return _downloaded("GPT-2 large", "gpt2_large", "openai-community/gpt2-large")


def gpt2_xl() -> Teacher:
    """GPT-2 XL: likelihoods. Nothing is put before a text, so its first token is not scored."""
    return _downloaded("GPT-2 XL", "gpt2_xl", "openai-community/gpt2-xl", dtype=torch.float16)


def llama2_7b() -> Teacher:
    """Llama-2-7B: likelihoods."""
    return _downloaded("Llama-2-7B", "llama2_7b", "meta-llama/Llama-2-7b-hf", bos=True, dtype=torch.float16)


def _downloaded(title, name, repository, **options):
    def obtain(text, data_dir):
        return {}, pretrained.identity(pretrained.downloaded(name, repository, data_dir))

    def build(weights, about):
        return pretrained.CausalLM(about, **options)

    return Teacher(title, obtain, build)
