"""The generated texts of a run: their tokens, what teachers make of them, and the ones that are shown."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusionblocks.base import tensors
from diffusionblocks.base.files import UserError
from diffusionblocks.data.text.dataset import Text
from diffusionblocks.evaluation.inputs import OFFERED, prompts
from diffusionblocks.sampling.sets import AGAIN, Sets, set_key
from diffusionblocks.scorers.teacher import load_teacher

SHOWN = 6  # texts that go into metrics.json, for the page


class Written:
    """All sets of a run's texts, read when a metric asks for them, and scored by each teacher once.

    teacher_paths: weights of the teachers.
    """

    def __init__(
        self, run: dict, data: Text, device: torch.device, paths: Sequence[Path], teacher_paths: Sequence[Path]
    ):
        self.sets, self._data, self._device = Sets(run, paths), data, device
        self._teachers = {}
        for path in teacher_paths:
            if (section := tensors.about(path, AGAIN).get("section")) is None:
                raise UserError(f"{path}: is no teacher's weights (--scorers)")
            self._teachers[_key(section)] = path
        self._scored, self._loaded = {}, (None, None)

    def inputs(self, sampling: dict, teacher: dict | None, needed: Sequence[str]) -> tuple[dict, dict]:
        """({name: value} of what a metric that needs these is computed from, what to know of its number)."""
        tokens, about = self._tokens(sampling)
        found = {"texts": tokens[:, sampling.get("prompt_len", 0) :].numpy()}
        known = {"samples": sampling["num_samples"], "sets": sampling["sets"], "idle_blocks": about["idle_blocks"]}
        if teacher:
            if _key(teacher) not in self._teachers:
                raise UserError(f"no weights of the teacher {teacher['name']}: hand them over (--scorers)")
            judge = tensors.about(self._teachers[_key(teacher)], AGAIN)
            known["extractor"] = judge["title"]
            if "text_features" in needed:
                known |= {"references": prompts(sampling), "blind": judge.get("blind")}
            for name in needed:
                if name not in found:
                    found[name] = self._score(name, teacher, tokens, sampling)
        return found, known

    def _score(self, name, teacher, tokens, sampling):
        """What a teacher says to an input's name, once for all metrics."""
        key = (name, set_key(sampling), _key(teacher))
        if key not in self._scored:
            prompt = sampling["prompt_len"]
            count = prompts(sampling)
            references = self._data.test_tokens[:count, : prompt + sampling["new_tokens"]].cpu().long()
            scorer, member = self._load(_key(teacher)), OFFERED[name]
            if not hasattr(scorer, member):
                raise UserError(f"teacher {teacher['name']}: has no {member}. Take another for this metric.")
            if name == "text_features":  # of texts of the same length
                sets = (tokens, references)
                scored = tuple(scorer.features(self._data.decode(part), part.to(self._device)) for part in sets)
            else:
                part = references if name == "reference_nll" else tokens
                whole, given = self._data.decode(part), self._data.decode(part[:, :prompt])
                scored = scorer.nll(whole, part.to(self._device), prompt, given)
            self._scored[key] = scored
        return self._scored[key]

    def _tokens(self, sampling):
        """(token ids (N, length) of a set, what to know of them)."""
        shards = self.sets.shards(sampling)
        found = torch.cat([tensors.read(path, AGAIN)[0]["tokens"] for _, path in shards]).long()
        return found[: sampling["num_samples"]], shards[0][0]

    def _load(self, key):
        if self._loaded[0] != key:
            self._loaded = (None, None)  # one at a time: some have seven billion parameters
            self._loaded = (key, load_teacher(self._teachers[key], self._device)[0])
        return self._loaded[1]

    def shown(self) -> dict | None:
        """The first texts of the first set, for the page: what was given, and what was written."""
        if (shards := self.sets.first()) is None:
            return None
        sampling = shards[0][0]["sampling"]
        tokens, _ = self._tokens(sampling)
        prompt, each = sampling.get("prompt_len", 0), sampling.get("continuations", 1)
        chosen = tokens[: SHOWN * each : each]
        given = self._data.decode(chosen[:, :prompt]) if prompt else [""] * len(chosen)
        return {"texts": [list(pair) for pair in zip(given, self._data.decode(chosen[:, prompt:]), strict=True)]}


def _key(value):
    return json.dumps(value, sort_keys=True)
