"""Llama 2's tokenizer, which the paper takes for LM1B and OpenWebText (appendix E.4)."""

from pathlib import Path

from diffusionblocks.data.text.tokens import Subwords


def llama2(data_dir: str | Path) -> Subwords:
    """The tokenizer in llama2/tokenizer.json of `data_dir`. Raises UserError that says how to get it."""
    cure = (
        "Meta gives Llama 2's tokenizer out on request, with the model meta-llama/Llama-2-7b-hf: put its "
        "tokenizer.json there, or set data_dir in config.yaml to the folder that has llama2/tokenizer.json."
    )
    return Subwords(Path(data_dir) / "llama2/tokenizer.json", "Llama 2, 32,000 tokens", cure)
