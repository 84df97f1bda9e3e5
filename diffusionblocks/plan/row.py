"""A row, resolved once: the system that is trained, how it is measured, and the files on the way."""

from collections.abc import Mapping
from functools import cached_property

from diffusionblocks.base import slurm
from diffusionblocks.base.components import Component, locate
from diffusionblocks.base.files import UserError
from diffusionblocks.base.source import SETS, returned_set
from diffusionblocks.diffusion.noise import NOISES
from diffusionblocks.evaluation.inputs import FEATURES, TIMED, served
from diffusionblocks.plan.configuration import ON_A_CPU, SCALES, SECTIONS, merge
from diffusionblocks.plan.layers import layers, resolve, started
from diffusionblocks.plan.sections import declared, extractors_of, fingerprint, section_name, sizes
from diffusionblocks.plan.source import absent_members, class_constant, positional
from diffusionblocks.training.settings import Settings

# How much a row generates: images or texts in a set, sets (of other noise), jobs that share the work.
SAMPLES = {"num_samples": 50_000, "sets": 1, "shards": 1}
# Texts that go on from a prompt: `continuations` of each prompt, `prompt_len` and `new_tokens` in tokens.
CONTINUATIONS = {"continuations": 5, "prompt_len": 50, "new_tokens": 50}
# How often the likelihood of the test set is estimated, each time at other levels of noise.
LIKELIHOOD = {"passes": 10}
# How a row of a counted table is timed, where metrics ask for it: updates of each block (the paper's hundred), on a CPU
# so few of fewer samples; without `samples_on_cpu` on a GPU alone.
TIMING = {"updates": 100, "updates_on_cpu": 6, "samples_on_cpu": None}
GENERATED = served("samples", "teacher")  # inputs of metrics that are computed from generated samples


class Row:
    """One row at one scale. Raises UserError, in the constructor, for a row without a section that training needs.

    data, model, method, train: its sections. metrics: {column: section}, each with all of its `sampling`. own: what the
    row says itself. results: folder of all results of the scale. counted: whether its table is, so that nothing is
    trained; `scale` is then the one whose sizes are counted, and it has one seed. start: the Row whose trained weights
    it starts from, or None. seen: paths of the rows that start from this one.
    """

    def __init__(self, config: dict, table: str, name: str, seen: tuple = ()):
        self.counted = "counted" in config["tables"][table]
        self.table, self.name, self.scale = table, name, config["tables"][table].get("counted", config["scale"])
        self.where = f"tables.{table}.rows.{name}"
        self.layers = layers(config, table, name)
        self.resolved = resolve(self.layers)
        for section in SECTIONS:
            if section not in self.resolved:
                raise UserError(f"config: {self.where} has no section {section!r} at scale {self.scale}")
        self.data, self.model, self.method, self.train = (self.resolved[section] for section in SECTIONS)
        self.results = f"results/{config['scale']}"
        self.timing = {**TIMING, **self.resolved.get("timing", {})}
        # Columns that are left out: on a machine without a GPU a job would find nothing to do.
        left_out = self.counted and config["scale"] in ON_A_CPU and self.timing["samples_on_cpu"] is None
        self.on_a_gpu = [] if not left_out else self._of_inputs(self.resolved.get("metrics", {}), TIMED)
        own = config["tables"][table]["rows"][name]
        self.paper_row, self.against = own.get("paper_row", name), own.get("against")
        self.title, self.series = own.get("title"), own.get("series", "ours")
        said = [own, *(own.get(scale, {}) for scale in SCALES[self.scale])]
        self.remark = [None, *(about["remark"] for about in said if "remark" in about)][-1]
        self.seeds = config["seeds"][: 1 if self.counted else self.resolved.get("seeds_at_most")]
        self.start = None
        if (start := self.resolved.get("start")) is not None:
            origin = started(config, table, name, start, seen)
            self.start = Row(config, *origin, (*seen, ("tables", table, "rows", name)))

    # What it consists of

    def component(self, kind: str) -> Component | None:
        """Where the source of its data, model or method stands."""
        return locate(kind, str({"data": self.data, "model": self.model, "method": self.method}[kind].get("name")))

    @cached_property
    def kind(self) -> str:
        """ "images" or "text"."""
        return SETS[returned_set(self.data)]

    @cached_property
    def method_settings(self) -> dict:
        """The method section with the defaults of the method's constructor filled in."""
        return {**declared(self.component("method")), **self.method}

    @cached_property
    def shape(self) -> dict | None:
        """Sizes of its data: as the row says them, where it is counted, else as the source does; None if neither."""
        return self.resolved.get("shape") or (sizes(self.data) or {}).get("shape")

    def offers(self, kind: str, member: str) -> bool:
        """Whether the class of its model or method defines a function."""
        found = self.component(kind)
        return found is not None and not absent_members(found.file, found.attribute, (member,))

    @cached_property
    def masks(self) -> bool:
        """Whether its noise masks tokens; of a network that passes `check_run`."""
        return NOISES[noise_kind(self.component("model"))].of_tokens

    @cached_property
    def continues(self) -> bool:
        """Whether its network writes texts on from a prompt, and does not make whole samples."""
        return self.offers("model", "begin")

    @cached_property
    def parts(self) -> list[str]:
        """What is trained in jobs of their own."""
        return parts_of(self.method_settings)

    # How it is measured

    @cached_property
    def metrics(self) -> dict:
        """{column: section}; the row's `sampling`, and defaults under that, are those of generation."""
        found = {}
        for column, section in self.resolved.get("metrics", {}).items():
            inputs, sampling = self.inputs(section), section.get("sampling", {})
            if column in self.on_a_gpu:
                continue
            if served("bound").intersection(inputs):
                sampling = {**LIKELIHOOD, **sampling}
            if GENERATED.intersection(inputs):
                sampling = {**self.sample_defaults, **merge(self.resolved.get("sampling", {}), sampling)}
            found[column] = {**section, "sampling": sampling}
        return found

    def columns_of(self, *inputs: str) -> list[str]:
        """Columns whose metrics are computed from one of these inputs."""
        return self._of_inputs(self.metrics, inputs)

    def _of_inputs(self, metrics, inputs):
        return [column for column, section in metrics.items() if set(inputs).intersection(self.inputs(section))]

    @staticmethod
    def inputs(section: dict) -> list[str]:
        """What a metric is computed from: the names of its positional arguments."""
        found = locate("metric", str(section.get("name")))
        return positional(found.file, found.attribute) if found else []

    @property
    def sample_defaults(self) -> dict:
        """How much is generated where the configuration does not say."""
        return SAMPLES | (CONTINUATIONS if self.continues else {})

    @cached_property
    def sample_sets(self) -> dict:
        """{name: sampling section} of what the metrics need to have generated. The name does not depend on shards."""
        wanted = [section["sampling"] for section in self.metrics.values() if GENERATED & set(self.inputs(section))]
        return {sample_name(sampling): sampling for sampling in wanted}

    @cached_property
    def extractor(self) -> dict | None:
        """The row's `extractor` section, if a metric needs features and names no extractor of its own."""
        needed = any("extractor" not in self.metrics[column] for column in self.columns_of(*FEATURES))
        return self.resolved.get("extractor") if needed else None

    @cached_property
    def extractors(self) -> dict:
        """Its `extractor` section and those that metrics name, {name of its folder: section}."""
        return extractors_of(self.extractor, self.metrics)

    @cached_property
    def teachers(self) -> dict:
        """The `teacher` sections that metrics of texts name, {name of its file: section}."""
        sections = (section["teacher"] for section in self.metrics.values() if "teacher" in section)
        return {section_name(section): section for section in sections}

    # What planning writes of it

    def run(self, seed: int) -> dict:
        """What run.json holds: all that decides a trained model, and nothing that does not (no metrics)."""
        sections = {section: self.resolved[section] for section in SECTIONS}
        run = {"scale": self.scale, "table": self.table, "row": self.name, "seed": seed, **sections}
        return run | ({"start": self.start.run(seed)} if self.start else {})

    def evaluation(self) -> dict:
        """What evaluation.json holds: the metrics, and what they need."""
        if self.counted:
            about = {"metrics": self.metrics, "parts": self.parts, "shape": self.shape}
            return about | ({"on_a_gpu": self.on_a_gpu} if self.on_a_gpu else {})
        return {"metrics": self.metrics, "extractor": self.extractor, "teachers": self.teachers}

    def processes(self, resources: Mapping) -> int:
        """How many processes share out a training: one for each GPU that its job asks for, which never is in run.json.

        Raises UserError where they cannot.
        """
        count = slurm.gpus(resources)
        try:
            Settings.of(self.train).check_shared(count)
        except UserError as error:
            raise UserError(f"{self.table}/{self.name}: {error}") from None
        return count

    # Its files

    @property
    def folder(self) -> str:
        return f"{self.results}/runs/{self.table}/{self.name}"

    @property
    def data_name(self) -> str:
        return section_name(self.data)

    @property
    def data_file(self) -> str:
        return f"{self.results}/data/{self.data_name}.safetensors"

    def part_files(self, seed: int, suffix: str) -> list[str]:
        return [f"{self.folder}/seed{seed}/parts/{part}{suffix}" for part in self.parts]

    def model_files(self, seed: int) -> list[str]:
        """What a trained model is read from: its own file, and those of its parts."""
        return [f"{self.folder}/seed{seed}/model.json", *self.part_files(seed, ".safetensors")]

    def start_files(self, seed: int) -> list[str]:
        """The model whose weights it starts from, of the same seed; nothing for a row that starts from its own."""
        return self.start.model_files(seed) if self.start else []

    def sample_files(self, seed: int) -> list[str]:
        """All shards of all samples that its metrics need."""
        return [
            f"{self.folder}/seed{seed}/samples/{name}/{shard}.safetensors"
            for name, sampling in self.sample_sets.items()
            for shard in range(sampling["shards"])
        ]

    def scorer_files(self) -> list[str]:
        """What judges its samples: teachers; extractors' weights and the real images' features."""
        files = [f"{self.results}/teachers/{self.data_name}/{name}.safetensors" for name in self.teachers]
        for name in self.extractors:
            folder = f"{self.results}/features/{self.data_name}/{name}"
            files += [f"{folder}/weights.safetensors", f"{folder}/reference.safetensors"]
        return files

    def timing_files(self) -> list[str]:
        return [f"{self.folder}/seed{seed}/timing.json" for seed in self.seeds]

    def metrics_files(self) -> list[str]:
        return [f"{self.folder}/seed{seed}/metrics.json" for seed in self.seeds]


def parts_of(method: dict) -> list[str]:
    """Parts of a run by its method section: one per block where blocks share nothing, else everything at once."""
    settings = {**declared(locate("method", method["name"])), **method}
    if settings.get("sharing") == "independent" and isinstance(settings.get("num_blocks"), int):
        return [f"block{block}" for block in range(settings["num_blocks"])]
    return ["all"]


def noise_kind(model: Component) -> str:
    """The `noise_kind` of a model's class, as its source says; of one that cannot be followed, the contract's."""
    return class_constant(model.file, model.attribute, "noise_kind", "edm")


def sample_name(sampling: dict) -> str:
    """Folder of generated samples: a hash of all that decides them."""
    return fingerprint({key: value for key, value in sampling.items() if key != "shards"})[:8]
