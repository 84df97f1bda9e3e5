"""What a source of data says of its sizes beside its function, so that they are known before the data are there."""

from collections.abc import Callable


def sizes(
    *,
    train_size: int | None = None,
    train_tokens: int | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    vocab_size: int | None = None,
    seq_len: int | None = None,
    bring: str | None = None,
) -> Callable:
    """`@sizes(...)` above a source, written out: planning reads the numbers from the file (plan/sections.py).

    A size that is a keyword of the source (`seq_len`) need not be said: the row's value, or its default, is taken.
    train_size: training samples, before `split: validation` takes a fifth of images away; train_tokens: of texts, all
    tokens of the training split, about. image_size (pixels of a side), channels, num_classes; vocab_size, seq_len
    (tokens): as in a prepared set's `shape`. Of latents image_size is that of the pixels, and channels are known.
    bring: what the user has to put into data_dir, in words.
    """
    return lambda source: source
