"""`python -m faceclip make JOBS --out FOLDER --server URL`: pictures by the hundred, stopped and resumed at will."""

import argparse
import collections
import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .. import __version__
from ..comfy.process import exit_on_sigterm
from ..comfy.server_errors import ServerError
from ..errors import InputError
from ..progress import bar
from .cell import Made, Planned
from .graph import JUDGES
from .jobs import Jobs, Plan, read_jobs
from .names import FIELDS
from .page import MOST, PAGE, Sheet
from .problems import Failures
from .results import Best, Entry, Results
from .servers import PICTURE_TIMEOUT, SLOTS, ServerWorker
from .servers_check import About, Check, choose
from .work import Worker, make_all

FAILURES = "failures.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("jobs", metavar="JOBS", help="what to make: a grid (.toml, .json) or rows (.csv, .jsonl, also at s3://...)")
    add("--out", metavar="FOLDER", required=True, help="where pictures go: a folder, or s3://, gs://, hf://, ...")
    add("--server", action="append", default=[], metavar="URL", help="a running ComfyUI; may be given several times")
    add("--servers", metavar="FILE", help="a file with an address in each line")
    add("--ray", metavar="ADDRESS", help='share the work through Ray, one actor per server; "local" starts Ray here')
    add("--name", metavar="TEMPLATE", help=f"names of the pictures, of {', '.join('{' + one + '}' for one in FIELDS)}")
    add("--best", type=int, metavar="N", help="keep the N likest of each row's seeds")
    add("--likeness", choices=JUDGES, metavar="JUDGE", help=f"tell each picture's likeness: {', '.join(JUDGES)}")
    add("--dry-run", action="store_true", help="check everything, ask the servers, and tell what would be made")
    add("--timeout", type=float, default=PICTURE_TIMEOUT, metavar="S", help="seconds for one picture (%(default).0f)")
    add("--ahead", type=int, default=SLOTS, metavar="N", help="pictures in a server's queue at once (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Check, make what is missing, write the page; 1 where pictures are missing, else 0."""
    exit_on_sigterm()
    judge = arguments.likeness or (next(iter(JUDGES)) if arguments.best is not None else None)
    jobs = read_jobs(arguments.jobs, arguments.name, JUDGES[judge] if judge else None)
    plan = jobs.check()
    urls = _urls(arguments)
    repeated = f", {plan.repeated} rows say the same again" if plan.repeated else ""
    _say(f"{jobs.name}: {plan.total} pictures of {plan.rows} rows{repeated}.")
    if arguments.dry_run:
        return _dry_run(jobs, urls, plan, arguments)
    if not urls:
        raise InputError(
            "No server is named: --server http://127.0.0.1:8188, once or several times, or --servers FILE."
        )
    results = Results(arguments.out)
    before = results.run()
    good, problems = choose(urls, [f"{folder}/{name}" for folder, name in plan.files], before.get("models"))
    for url, why in problems.items():
        _say(f"Left out: {url}: {why}")
    made_with = _made_with(jobs, next(iter(good.values())), before, arguments)
    results.begin(made_with)
    return _Run(jobs, plan, results, arguments, made_with, good).go(resumed=bool(before))


def _made_with(jobs: Jobs, about: About, before: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    if before and before.get("best") != arguments.best:
        raise InputError(
            f"{arguments.out} was made with --best {before.get('best')}, now it is {arguments.best}; what was "
            "sorted out is gone. Name another --out."
        )
    versions = {**about.versions, "client": __version__}
    return {"jobs": jobs.name, "best": arguments.best, "models": about.files, "versions": versions}


def _urls(arguments: argparse.Namespace) -> list[str]:
    urls = list(arguments.server)
    if arguments.servers:
        try:
            with open(arguments.servers, encoding="utf-8") as file:
                lines = (line.partition("#")[0].strip() for line in file)
                urls += [line for line in lines if line]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--servers {arguments.servers}: cannot be read ({error}).") from error
    if arguments.ray and not urls:
        raise InputError("--ray shares work between ComfyUI servers; name them with --server or --servers.")
    for url in urls:
        ServerWorker(url)  # which checks the address
    if arguments.ahead < 1:
        raise InputError(f"--ahead is {arguments.ahead}, wanted at least 1.")
    return list(dict.fromkeys(url.rstrip("/") for url in urls))


def _dry_run(jobs: Jobs, urls: list[str], plan: Plan, arguments: argparse.Namespace) -> int:
    for one, _ in zip(jobs.planned(), range(5), strict=False):
        _say(f"  {one.name}: {one.facts['prompt']}")
    good: dict[str, About] = {}
    if urls:
        good, problems = choose(urls, [f"{folder}/{name}" for folder, name in plan.files])
        for url in urls:
            _say(f"{url}: {problems.get(url, 'ready')}")
    _say(f"Nothing was made: this was a dry run into {arguments.out}.")
    return int(bool(urls) and len(good) < len(urls))


class _Run:
    """One call of the command, once everything is checked."""

    def __init__(self, jobs: Jobs, plan: Plan, results: Results, arguments: argparse.Namespace, made_with: dict, good):
        self._jobs, self._plan, self._results, self._arguments = jobs, plan, results, arguments
        self._about = {"models": made_with["models"], "versions": made_with["versions"]}
        self._urls: list[str] = list(good)
        self._best = Best(results, arguments.best) if arguments.best is not None else None
        self._sheet, self._failures = Sheet(), Failures()

    def go(self, resumed: bool) -> int:
        """Makes what is missing. resumed: whether the folder has pictures of an earlier run."""
        missing = self._plan.total
        if resumed:
            missing = sum(entry is None for _, entry in self._results.look(self._jobs.planned()))
            _say(f"{missing} pictures to make, {self._plan.total - missing} are there already.")
        self._bar = bar("Making", "pictures", missing)
        try:
            with self._workers(resumed) as workers:
                outcome = make_all(self._missing(), workers, self._keep, self._tell, self._fail, missing)
                collections.deque(
                    self._missing() if not missing else (), maxlen=0
                )  # what is there is shown all the same
        except (KeyboardInterrupt, SystemExit, ServerError):
            self._bar.close()
            made = self._bar.n - self._failures.total
            _say(f"\nStopped; {made} pictures were made and stay. The same command goes on.")
            raise
        self._bar.close()
        for name, reason in outcome.lost.items():
            _say(f"Given up: {name} ({reason})")
        for entry in self._best.finish() if self._best else ():
            self._sheet.add(entry)
        return self._report(outcome.made)

    def _missing(self) -> Iterator[Planned]:
        for one, entry in self._results.look(self._jobs.planned()):
            if entry is None:
                yield one
            else:
                self._settle(one, entry)

    @contextlib.contextmanager
    def _workers(self, resumed: bool) -> Iterator[Sequence[Worker]]:
        options = {"timeout": self._arguments.timeout, "slots": self._arguments.ahead, "look_back": resumed}
        factory = functools.partial(ServerWorker, **options, check=Check(self._about["models"]))
        if self._arguments.ray:
            from .ray_pool import ray_workers

            with ray_workers(self._arguments.ray, self._urls, factory, self._arguments.ahead) as workers:
                yield workers
        else:
            yield [factory(url) for url in self._urls]

    def _keep(self, one: Planned, made: Made) -> None:
        self._settle(one, self._results.keep(one, made, self._about))

    def _fail(self, one: Planned, reason: str) -> None:
        self._failures.add(one.place, one.name, reason)
        self._settle(one, None)

    def _settle(self, one: Planned, entry: Entry | None) -> None:
        if self._best:
            for sorted_out in self._best.add(one, entry):
                self._sheet.add(sorted_out)
        elif entry:
            self._sheet.add(entry)

    def _tell(self, done: int, total: int) -> None:
        rate = self._bar.format_dict["elapsed"] / 60
        if rate > 0:
            self._bar.set_postfix_str(f"{done / rate:.1f} pictures a minute", refresh=False)
        self._bar.update(done - self._bar.n)

    def _report(self, made: int) -> int:
        folder = self._results.folder
        shown = self._sheet.write(folder, self._jobs.name)
        self._sheet.close()
        _say(f"{made} pictures made, {self._sheet.count} in all" + (" that were kept." if self._best else "."))
        if self._failures.total:
            folder.write(FAILURES, self._failures.lines())
            _say(f"{self._failures.total} failed, each in {folder.where}/{FAILURES}:\n{self._failures.summary()}")
        else:
            folder.remove(FAILURES)
        _say(f"Page: {folder.where}/{PAGE}" if shown else f"No page: it would show more than {MOST} pictures.")
        return int(self._failures.total > 0)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
