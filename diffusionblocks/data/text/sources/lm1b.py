"""One Billion Word (Chelba et al. 2013): shuffled sentences of news, in Llama 2's tokens."""

from pathlib import Path
from typing import Literal

from diffusionblocks.data.archive import tar_members
from diffusionblocks.data.download import ARCHIVES, fetch
from diffusionblocks.data.sizes import sizes
from diffusionblocks.data.text.detokenise import detokenised
from diffusionblocks.data.text.llama2 import llama2
from diffusionblocks.data.text.source import TextSet, text_set

ROOT = "1-billion-word-language-modeling-benchmark-r13output"
TRAIN = [f"{ROOT}/training-monolingual.tokenized.shuffled/news.en-{shard:05}-of-00100" for shard in range(1, 100)]
TEST = [f"{ROOT}/heldout-monolingual.tokenized.shuffled/news.en.heldout-{shard:05}-of-00050" for shard in range(50)]


@sizes(train_tokens=1_000_000_000, vocab_size=32_000, bring="Llama 2's tokenizer, 2 MB, as llama2/tokenizer.json")
def lm1b(
    data_dir: str | Path,
    *,
    seq_len: int = 256,
    test_size: int = 5000,
    split: Literal["test", "validation"] = "test",
    detokenise: bool = True,
) -> TextSet:
    """99 shards for training, 50 held out for the test; `validation` holds the last training shard out.

    detokenise: take the blanks away that LM1B has around its punctuation, as BD3-LM does; otherwise its lines as they
    are.
    """
    path, parts = fetch(ARCHIVES["lm1b"], data_dir), dict.fromkeys(TRAIN, "train")
    parts |= dict.fromkeys(TEST, "test") if split == "test" else {TRAIN[-1]: "test"}
    lines = ((parts[name], line.decode().strip()) for name, lines in tar_members(path, parts) for line in lines)
    documents = ((part, detokenised(line)) for part, line in lines) if detokenise else lines
    return text_set("LM1B", split, llama2(data_dir), seq_len, test_size, documents)
