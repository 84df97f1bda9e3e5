"""What a teacher's function returns."""

from collections import namedtuple

Teacher = namedtuple("Teacher", "title obtain build gives", defaults=[("features", "nll")])
Teacher.__doc__ = """title: what reaches the page. obtain(text, data_dir): (weights {name: tensor}, {what to know of
them}), text being the data set. build(weights, about): what has `features(texts, tokens)`, (N, D), and
`nll(texts, tokens, prompt_len, prompts)`, the nats (N,) and numbers of scored tokens (N,) of what follows the prompts;
arrays. texts: whole, decoded; tokens: the same (N, n), on the device to compute on; prompt_len: how many of these are
the prompt; prompts: those, decoded. gives: which of the two it has, if not both, written out: planning reads it. What
is known may hold `blind`, what the features do not see, for the page: `hardly see the order of tokens`."""
