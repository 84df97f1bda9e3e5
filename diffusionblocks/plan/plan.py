"""The plan: every row of the scale, resolved once, the files that planning writes, and the code behind each step."""

import json
from functools import cached_property
from pathlib import Path

from diffusionblocks.base.components import locate
from diffusionblocks.base.files import UserError, read_json, write_text
from diffusionblocks.base.source import SETS, returned_set
from diffusionblocks.evaluation.inputs import TIMED, TIMED_CHAIN
from diffusionblocks.plan.code import run_files, step_files, timing_files
from diffusionblocks.plan.configuration import complete
from diffusionblocks.plan.layers import check_like, has_settings, trained
from diffusionblocks.plan.row import Row
from diffusionblocks.plan.sections import fingerprint
from diffusionblocks.plan.values import shown


class Plan:
    """All tables that have settings for the configured scale. config: as Snakemake has it, with the tables complete;
    its `seeds` may be a list for each scale.

    tables: their names. rows: {(table, row): Row} of what is trained.
    """

    # Names, as a regular expression, of the files that the rule `plan` makes, without .json.
    PLANNED = (
        r"data/\w+(-[0-9a-f]{8})?/source|runs/\w+/\w+/(evaluation|timing|seed\d+/run|samples/[0-9a-f]{8})|tables/\w+"
        r"|features/\w+(-[0-9a-f]{8})?/\w+(-[0-9a-f]{8})?/extractor|teachers/\w+(-[0-9a-f]{8})?/\w+(-[0-9a-f]{8})?"
    )

    def __init__(self, config: dict):
        if isinstance(config["seeds"], dict):
            config = {**config, "seeds": config["seeds"][config["scale"]]}
        self.config, self.scale = config, config["scale"]
        self.results = f"results/{self.scale}"
        for table in config["tables"]:
            check_like(config, table)
        wanted = config.get("select") or "all"
        self.tables = [name for name in config["tables"] if has_settings(config, name)]
        self.tables.sort(key=lambda name: "counted" in config["tables"][name])  # what is trained comes first
        if wanted != "all":
            if absent := [name for name in wanted if name not in self.tables]:
                raise UserError(f"config: select: there is no table {absent[0]!r} at scale {self.scale}")
            self.tables = [name for name in self.tables if name in wanted]
        if not self.tables:
            raise UserError(f"config: no table has settings for scale {self.scale!r}")
        self.origins = {
            (table, row): trained(config, table, row)
            for table in self.tables
            for row in config["tables"][table]["rows"]
        }
        self.rows = {origin: Row(config, *origin) for origin in dict.fromkeys(self.origins.values())}
        for row in [*self.rows.values()]:
            while row := row.start:  # of a table that may not be among the chosen ones
                self.rows.setdefault((row.table, row.name), row)

    @classmethod
    def of(cls, config: dict) -> "Plan":
        """The plan of a configuration that may lack the tables beside it, after every check."""
        from diffusionblocks.plan.check import check, check_frame

        config = complete(config)
        check_frame(config)
        plan = cls(config)
        check(plan)
        return plan

    # Asked by rules, with their wildcards

    def row(self, wildcards) -> Row:
        """The row that wildcards `table` and `row` name."""
        return self.rows[wildcards.table, wildcards.row]

    def compared(self, row: Row) -> list[str]:
        """metrics.json of the row that a counted one is compared with, as on the page; of a trained one, or of none,
        nothing. Raises UserError for a row that is not there, or is not counted.
        """
        other = self._other(row)
        return other.metrics_files() if other else []

    def timing(self, row: Row) -> list[str]:
        """timing.json that has a row's times, of a row that is timed: it is with the row that it is compared with."""
        return (self._other(row) or row).timing_files() if row.columns_of(*TIMED) else []

    def _other(self, row):
        """The row that a counted one is compared with, see `compared`; None if there is none."""
        entry = self.config["tables"][row.table]
        printed = entry.get("printed", {}).get("rows", {}).get(row.paper_row, {})
        other = row.against or printed.get("against")
        if other is None or not row.counted:
            return None
        found = self.rows.get(self.origins.get((row.table, other)))
        if found is None or not found.counted or found is row:
            raise UserError(f"config: {row.where}.against: {other!r} is no other row of {row.table} that is counted")
        return found

    def shards_of(self, wildcards) -> list[str]:
        """The encoded shards that a prepared file joins; a source without the keyword `shards` has none."""
        from diffusionblocks.plan.sections import declared

        section = self._data[wildcards.data]
        count = {"shards": 0, **declared(locate("data", section["name"])), **section}["shards"]
        return [f"{self.results}/data/{wildcards.data}/shard{shard}.safetensors" for shard in range(count)]

    def priority(self, wildcards) -> int:
        """How early a job runs: rows one after the other, in the order of the tables, each with all that it needs.

        So the first table is there long before the last, and rows are finished all along. What belongs to no row, such
        as a table's page, is short and waits for nothing.
        """
        kind, *names = wildcards.get("planned", "").split("/")
        if kind == "runs" or "row" in wildcards.keys():  # noqa: SIM118 (Snakemake's have no `in`)
            of = tuple(names[:2]) if names else (wildcards.table, wildcards.row)
        else:
            of = names[0] if names else wildcards.get("data")
        return self._ranks.get(of, len(self.origins) + 1)

    @cached_property
    def _ranks(self):
        """{(table, row), or name of a data set: its priority}; what comes first has the highest."""
        found = {}
        for rank, origin in enumerate(reversed(self.origins.values()), 1):
            row = self.rows[origin]
            while row:
                found[row.table, row.name] = rank
                if not row.counted:
                    found[row.data_name] = rank
                row = row.start
        return found

    def targets(self) -> list[tuple[str, list[str], str]]:
        """(name of a target, its tables, what it is in words): each table, and each alias."""
        single = [(name, [name], f"{self.config['tables'][name]['title']}.") for name in self.tables]
        shared = [(name, tables, f"Another name for {' and '.join(tables)}.") for name, tables in self.aliases.items()]
        return single + shared

    def pages_of(self, tables: list[str]) -> list[str]:
        return [f"{self.results}/tables/{table}.{kind}" for table in tables for kind in ("csv", "html")]

    def metrics_of(self, tables: list[str]) -> list[str]:
        """metrics.json of every run behind the tables, each once."""
        rows = dict.fromkeys(origin for (table, _), origin in self.origins.items() if table in tables)
        return [file for origin in rows for file in self.rows[origin].metrics_files()]

    @property
    def aliases(self) -> dict[str, list[str]]:
        """{another name: its tables}."""
        found = {}
        for table in self.tables:
            if alias := self.config["tables"][table].get("alias"):
                found.setdefault(alias, []).append(table)
        return found

    @property
    def counted(self) -> str:
        """Regular expression of the tables that are counted, which matches nothing where there is none."""
        return "|".join(table for table in self.config["tables"] if "counted" in self.config["tables"][table]) or "(?!)"

    # Files that planning writes

    @cached_property
    def _data(self):
        return {row.data_name: row.data for row in self.rows.values() if not row.counted}

    @cached_property
    def timed_together(self) -> dict[tuple[str, str], list[Row]]:
        """{(table, row): it and all rows that are compared with it} where one of these is timed."""
        found = {}
        for row in self.rows.values():
            if row.columns_of(*TIMED):
                first = self._other(row) or row
                found.setdefault((first.table, first.name), [first]).append(row)
        return {origin: list(dict.fromkeys(rows)) for origin, rows in found.items()}

    @cached_property
    def _never_counted(self):
        """Rows of counted tables that are only timed, or whose chain alone is counted, as is each that is compared."""
        needed = set()
        for row in self.rows.values():
            if row.counted and row.columns_of("counted", "compared"):
                needed |= {row, self._other(row) or row}
        return {row for row in self.rows.values() if row.counted} - needed

    def _asked(self, rows):
        """What a job that times rows reads: how, what each trains, and with which the others are compared."""
        updates, timed = any(row.columns_of("timed", "timed_compared") for row in rows), {}
        for row in rows:
            about = {"run": row.run(row.seeds[0]), "shape": row.shape}
            chains = {column: row.metrics[column]["sampling"] for column in row.columns_of(*TIMED_CHAIN)}
            timed[row.name] = {**about, "parts": row.parts if updates else [], "chains": chains}
        return {**rows[0].timing, "compared": rows[0].name, "timed": timed}

    @cached_property
    def written(self) -> dict[str, dict]:
        """{name under the results folder, without .json: content} of all files that steps read their settings from."""
        found = {f"data/{name}/source": section for name, section in self._data.items()}
        for row in self.rows.values():
            folder = f"runs/{row.table}/{row.name}"
            found[f"{folder}/evaluation"] = row.evaluation() | (
                {"counted": False} if row in self._never_counted else {}
            )
            for seed in row.seeds:
                found[f"{folder}/seed{seed}/run"] = row.run(seed)
            found |= {f"{folder}/samples/{name}": sampling for name, sampling in row.sample_sets.items()}
            for name, section in row.teachers.items():
                found[f"teachers/{row.data_name}/{name}"] = section
            for name, section in row.extractors.items():
                found[f"features/{row.data_name}/{name}/extractor"] = section
        for rows in self.timed_together.values():
            found[f"runs/{rows[0].table}/{rows[0].name}/timing"] = self._asked(rows)
        return found | {f"tables/{table}": self._table(table) for table in self.tables}

    def _table(self, name):
        """What the table and its page need to know (page/table.py)."""
        entry = self.config["tables"][name]
        rows = {}
        for row, own in entry["rows"].items():
            origin = self.rows[self.origins[name, row]]
            borrowed = isinstance(own, str)
            rows[row] = {
                "run": f"{origin.table}/{origin.name}",
                "title": origin.title or row,
                "paper_row": row if borrowed else origin.paper_row,
                "against": None if borrowed else origin.against,
                "remark": None if borrowed else origin.remark,
                "series": "ours" if borrowed else origin.series,
                "metrics": origin.metrics_files(),
                "settings": shown(origin),
            }
        words = {key: entry.get(key) or [] for key in ("claims", "figures", "depth")}
        words["cross_checks"] = entry.get("cross_checks", {}).get(self.scale, {})
        about = {"table": name, "title": entry["title"], "scale": self.scale, "paper": entry.get("printed")}
        return {**about, **words, "rows": rows}

    def digest(self, name: str, content: object = None) -> str:
        """A hash of a written file, which tells a rule that it has changed; or of another `content` in its place."""
        if name not in self.written:
            raise UserError(f"{self.results}/{name}.json: belongs to no row of the configuration at scale {self.scale}")
        content = self.written[name] if content is None else content
        ordered = json.dumps(content) if name.startswith("tables/") else None  # of rows the order counts
        return fingerprint(ordered or content)[:16]

    def write(self) -> None:
        """Write all of it to one file, from which the rule `plan` takes each."""
        write_text(f"{self.results}/plan.json", json.dumps(self.written))

    # The code behind a step

    def code(self, step: str, wildcards=None) -> list[str]:
        """Source files that a step depends on, with what its wildcards name: architecture, method, data, scorers."""
        keys = wildcards.keys() if wildcards is not None else ()
        if "row" in keys:
            row = self.row(wildcards)
            if step == "timing":
                return timing_files(self._asked(self.timed_together[row.table, row.name]))
            sampling = row.sample_sets.get(wildcards.sampling) if step == "sample" else None
            return run_files(step, row.run(0), sampling, row.evaluation() if step in ("evaluate", "count") else None)
        if step in ("prepare", "encode"):
            section = self._data[wildcards.data]
            return step_files(
                step, ("data", section), modules=(f"diffusionblocks.data.{SETS[returned_set(section)]}.write",)
            )
        if step in ("extractor", "reference"):
            section = self.written[f"features/{wildcards.data}/{wildcards.extractor}/extractor"]
            return step_files(step, ("extractor", section))
        if step == "teacher":
            return step_files(step, ("teacher", self.written[f"teachers/{wildcards.data}/{wildcards.teacher}"]))
        return step_files(step)


def plan(plan_path: str, name: str, path: str | Path) -> None:
    """Write one file of the plan that `Plan.write` has gathered. Raises UserError if the plan has no such file."""
    written = read_json(plan_path)
    if name not in written:
        raise UserError(f"{plan_path}: has no {name}. Start snakemake again: it writes the plan anew.")
    write_text(path, json.dumps(written[name], indent=2) + "\n")  # in its order, which is a table's
