"""What a running workflow says: a line for each row that is measured and each page, with the time that is left.

What Snakemake says of every job, a dozen lines each, stays in its own log; with `--verbose`, `--printshellcmds` or
`--quiet` the terminal is as Snakemake has it. Standard library only.
"""

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from diffusionblocks.base.files import read_json
from diffusionblocks.base.words import clock

# Events of Snakemake's log records that tell of jobs, and words of those without an event that do.
OF_JOBS = ("job_info", "group_info", "shellcmd", "job_started", "progress", "resources_info", "run_info")
HIDDEN = (*OF_JOBS, "workflow_started")
HIDDEN_WORDS = ("Select jobs to execute", "Using shell: ", "Conda environments: ignored")
ERRORS = ("job_error", "group_error")  # which `--quiet rules` would hide, the failed job's log with them
MEASURES, PAGES = ("evaluate", "count"), ("page", "page_of_table")
SILENCE = 60  # seconds after which something is said of a long training, too


class Progress:
    """workflow: Snakemake's. rows: {(table, row): Row}, as `Plan.rows`. clock: seconds, as time.monotonic."""

    def __init__(self, workflow: Any, rows: Mapping, clock=time.monotonic):
        self.workflow, self.rows, self.clock = workflow, rows, clock
        self.jobs: dict[int, Any] = {}  # those that are not done, by their number
        self.begun: dict[int, float] = {}  # of those that run
        self.took = defaultdict(list)  # seconds of those that are done: of a rule, its table, its row

    def listen(self, logger: logging.Logger) -> None:
        """Stand between Snakemake's log and the terminal; a logger that the user has chosen is left alone."""
        for handler in logger.handlers:
            usual, shown = handler.filters[:], handler.formatter
            if handler.name == "DefaultLogFileHandler":
                handler.filters = [lambda record, usual=usual: self._passes(record, usual)]
            elif handler.name == "DefaultStreamHandler":
                handler.filters = [lambda record, usual=usual: self._hear(record, usual)]
                handler.setFormatter(_Formatter(self, shown))

    def start(self, jobs: Iterable[Any]) -> None:
        """jobs: those that are to be done. The time begins."""
        self.jobs = {job.jobid: job for job in jobs}
        self.at = self.told = self.clock()
        self.total = {"rows": len(self._rows()), "pages": len(self._of(*PAGES)), "trainings": len(self._of("train"))}
        if self.speaks and self.total["rows"]:
            logging.getLogger("snakemake.logging").info(
                f"To do: {self.total['trainings']} trainings, {self.total['rows']} rows to be measured, "
                f"{self.total['pages']} pages. How far each training is: python -m diffusionblocks status"
            )

    @property
    def speaks(self) -> bool:
        """Whether the terminal is ours; without hooks nobody calls `start`, and it would be silent."""
        said = self.workflow.output_settings
        usual = said.verbose or said.printshellcmds or said.debug_dag or said.quiet
        hooks = not getattr(self.workflow.execution_settings, "no_hooks", False)
        return hooks and not (usual or self.workflow.dryrun or self.workflow.touch)

    def _passes(self, record, usual):
        """Whether a handler shows a record, as it usually does, errors besides."""
        quiet = self.workflow.output_settings.quiet or ()
        if getattr(record, "event", None) in ERRORS and "all" not in map(str, quiet):
            return True
        return all(one.filter(record) for one in usual)

    def _hear(self, record, usual):
        """Note what a record says of jobs. Whether the terminal shows it."""
        event = getattr(record, "event", None)
        if event == "job_info":
            self.begun[record.jobid] = self.clock()
        elif event == "job_error":
            self.begun.pop(record.jobid, None)
        if not self.speaks:
            return self._passes(record, usual)
        words = event is None and isinstance(record.msg, str) and record.msg.startswith(HIDDEN_WORDS)
        return event not in HIDDEN and not words and self._passes(record, usual)

    def finished(self, jobid: int) -> str:
        """What there is to say when a job is done; nothing, of most."""
        job = self.jobs.pop(jobid, None)
        if job is None:
            return ""
        now = self.clock()
        for kind in _kinds(job):
            self.took[kind].append(now - self.begun.get(jobid, now))
        self.begun.pop(jobid, None)
        rule, rows = job.rule.name, self._rows()
        counts = f"{self.total['rows'] - len(rows)} of {self.total['rows']} rows"
        if rule in MEASURES and (row := _row(job)) not in rows:
            said = f"{'/'.join(row)}{self._measured(row)}; {counts}"
        elif rule in PAGES:
            said = f"{job.output[0]}; {self.total['pages'] - len(self._of(*PAGES))} of {self.total['pages']} pages"
        elif now - self.told > SILENCE and self.jobs:
            trainings = self.total["trainings"] - len(self._of("train"))
            said = f"{trainings} of {self.total['trainings']} trainings, {counts}"
        else:
            return ""
        self.told, left = now, self.left()
        return f"{clock(now - self.at)}  {said}{f', {_about(left)} left' if left else ''}"

    def left(self) -> float | None:
        """Seconds until all is done, if as many jobs run at once as until now, each as long as those like it.

        None while no training is done and some wait, and where only what takes no time is left.
        """
        if not self._of(*MEASURES, *PAGES, "train") or (self._of("train") and not self.took["train",]):
            return None
        now = self.clock()
        spent = {jobid: now - begun for jobid, begun in list(self.begun.items())}  # the log may add to them
        at_once = (sum(self.took[()]) + sum(spent.values())) / max(now - self.at, 1e-3)
        means = {kind: fmean(seconds) for kind, seconds in self.took.items() if seconds}
        work = 0
        for jobid, job in self.jobs.items():
            expected = next(means[kind] for kind in _kinds(job) if kind in means)
            work += max(expected - spent.get(jobid, 0), 0)
        return work / at_once if at_once else None

    def _of(self, *rules):
        return [job for job in self.jobs.values() if job.rule.name in rules]

    def _rows(self):
        """Rows with a seed that is still to be measured."""
        return {_row(job) for job in self._of(*MEASURES)}

    def _measured(self, row):
        """A row's first number in its table's order, mean over the seeds that are there: one may be asked alone."""
        try:
            files = filter(Path.is_file, map(Path, self.rows[row].metrics_files()))
            found = [read_json(file)["metrics"] for file in files]
            column = next(column for column in self.rows[row].metrics if column in found[0])
            mean, unit = fmean(metrics[column]["value"] for metrics in found), found[0][column]["unit"] or ""
        except Exception:  # in the midst of logging, where it would be a traceback between the lines
            return ""
        seeds = f" ({len(found)} seeds)" if len(found) > 1 else ""
        return f": {column} {mean:.4g} {unit}".rstrip() + seeds


class _Formatter(logging.Formatter):
    """Says of a job that is done what Progress does (an empty text is not shown), and leaves out the inputs of one that
    failed, which are kilobytes.
    """

    def __init__(self, progress, usual):
        super().__init__()
        self.progress, self.usual = progress, usual

    def format(self, record):
        if self.progress.speaks:
            if getattr(record, "event", None) == "job_finished":
                return self.progress.finished(record.job_id)
            if getattr(record, "event", None) == "job_error":
                record = copy.copy(record)
                record.input, record.shellcmd = [], None
        return self.usual.format(record)


def _row(job):
    return job.wildcards.table, job.wildcards.row


def _kinds(job):
    """Of which jobs a job takes about as long, the most alike first."""
    of_row = [job.wildcards.get(key) for key in ("table", "row")]
    kinds = [(job.rule.name, *of_row), (job.rule.name, of_row[0]), (job.rule.name,), ()]
    return [kind for kind in kinds if None not in kind]


def _about(seconds):
    """A time as precise as it is known: `20 s`, `6 min`, `3.5 h`."""
    if seconds < 55:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h"
