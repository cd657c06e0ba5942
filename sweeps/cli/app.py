"""The command `tokenlaw`: studies from plan to report. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from results.errors import TokenlawError, UsageError

from . import fit, store
from .options import (
    ClusterOption,
    JobsOption,
    JsonOption,
    RootOption,
    SetOption,
    StudiesArgument,
    StudyArgument,
    WaitOption,
    check_cluster,
    default_jobs,
)

if TYPE_CHECKING:
    from sweeps.backends.standing import SubmissionSummary
    from sweeps.planning.plan import Plan


class _Group(TyperGroup):
    """Ends every error of ours in one line and its exit code, and an interrupt in 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TokenlawError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise SystemExit(128 + signal.SIGINT) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Scaling laws for two-stage image generators: which tokenizer and which generator to train together.",
)
store.add_commands(app)
fit.add_commands(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"tokenlaw {version('tokenlaw')}")
        raise typer.Exit()


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    smoke: Annotated[
        bool, typer.Option("--smoke", help="The same path in two minutes; its numbers mean nothing.")
    ] = False,
    jobs: JobsOption = None,
    root: RootOption = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: ROOT/reports/STUDY.")] = None,
) -> None:
    """Run the built-in study on real photographs and write its report; a second time it trains nothing."""
    name = "smoke" if smoke else "fashion"
    plan = _load(name, [], root)
    begun = time.monotonic()
    summary = _submit_and_show(plan, root, min(jobs or default_jobs(), jobs or 8), over_limit=False)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
    store.write_report(name, root, out, [])
    from sweeps.text import duration

    print(f"\nIn all {duration(time.monotonic() - begun)}.")


@app.command()
def plan(
    studies: StudiesArgument,
    sets: SetOption = None,
    hardware: Annotated[
        str | None, typer.Option(help="Profile for GPU-hours in place of the study's; an unknown one lists them.")
    ] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the profile's peak that training reaches.")] = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write a line a run to FILE, or - for here.")
    ] = None,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show the runs of studies, what they cost, and what is done. A run that several share counts once."""
    from results import Store
    from sweeps.backends.status import collect
    from sweeps.planning.plan import unite
    from sweeps.record.trainer_code import done_with_other_code, notice
    from sweeps.study.hardware import choose

    from .plan_table import PlanTable

    plans = [_load(study, sets, root) for study in studies]
    chosen = choose(next((made.study.hardware for made in plans if made.study.hardware), None), hardware, mfu)
    united = unite(plans)
    statuses = collect(united, root)
    done = [one.run.run_id for one in statuses if one.status == "done"]
    notices = [text for made in plans if (text := notice(done_with_other_code(made, root)))]
    table = PlanTable(plans, united, statuses, Store(root).results(done), chosen, notices)
    if as_json:
        print(json.dumps(table.as_json(), indent=1))
    if csv_file == "-":
        sys.stdout.write(table.as_csv())
    elif csv_file:
        from results.store import atomic

        atomic.write(Path(csv_file), table.as_csv())
    if not as_json and csv_file != "-":
        print(table.in_words())


@app.command()
def submit(
    study: StudyArgument,
    cluster: ClusterOption = "local",
    jobs: JobsOption = None,
    wait: WaitOption = False,
    sets: SetOption = None,
    over_limit: Annotated[bool, typer.Option("--over-limit", help="Submit although the limits are exceeded.")] = False,
    root: RootOption = Path("runs"),
) -> None:
    """Execute what a study lacks. Stopped or killed at any time, the same command goes on; twice, it does nothing."""
    check_cluster(cluster)
    made = _load(study, sets, root)
    _check_trainers(made)
    if cluster == "slurm":
        from .slurm import submit_to_slurm

        raise typer.Exit(submit_to_slurm(made, root, jobs=jobs, wait=wait, over_limit=over_limit))
    if wait or cluster == "debug":
        jobs = jobs or default_jobs()
        summary = _submit_and_show(made, root, jobs, over_limit=over_limit, debug=cluster == "debug")
        raise typer.Exit(summary.exit_code)
    _submit_detached(made, root, jobs or default_jobs(), over_limit)


@app.command()
def status(
    study: StudyArgument,
    sets: SetOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds until nothing runs.")] = False,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show how the runs of a study stand, here and in the queue of the cluster, with progress, causes and time left."""
    from sweeps.backends.status import cluster_view, collect

    from .views import print_status

    made = _load(study, sets, root)
    while True:
        cluster = cluster_view(root)
        statuses = collect(made, root, cluster)
        if as_json:
            found = [s.as_json() for s in statuses]
            print(json.dumps({"study": made.study.name, "runs": found}, indent=None if watch else 1), flush=True)
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print_status(made, statuses, cluster.complaint)
        if not watch or not any(s.status == "running" or s.queued for s in statuses):
            return
        time.sleep(2)


@app.command()
def retry(
    study: StudyArgument,
    cluster: ClusterOption = "local",
    jobs: JobsOption = None,
    wait: WaitOption = False,
    sets: SetOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Try again what failed in a study, however often it did, with what waits for it, and nothing else."""
    from sweeps.backends.status import collect

    check_cluster(cluster)
    made = _load(study, sets, root)
    _check_trainers(made)
    failed = {s.run.run_id for s in collect(made, root) if s.status == "failed"}
    if not failed:
        print(f"{made.study.name}: nothing failed")
        return
    only = failed | {run.run_id for run_id in failed for run in made.dependents[run_id]}
    # A failed generator may wait for a tokenizer that is not done.
    only |= {parent for run_id in failed if (parent := made.by_id[run_id].parent)}
    if cluster == "slurm":
        from .slurm import submit_to_slurm

        code = submit_to_slurm(made, root, jobs=jobs, wait=wait, over_limit=True, only=only, retry=True)
        raise typer.Exit(code)
    if wait or cluster == "debug":
        jobs = jobs or default_jobs()
        debug = cluster == "debug"
        summary = _submit_and_show(made, root, jobs, over_limit=True, only=only, debug=debug, retry=True)
        raise typer.Exit(summary.exit_code)
    _submit_detached(made, root, jobs or default_jobs(), True, only, retry=True)


@app.command()
def cancel(study: StudyArgument, sets: SetOption = None, root: RootOption = Path("runs")) -> None:
    """Stop the runs of a study, here and on the cluster; they save checkpoints, and a later submit goes on."""
    from sweeps.backends import launch

    from .slurm import cancel_on_slurm

    made = _load(study, sets, root)
    submitters, lone = launch.cancel(made, root)
    if submitters or lone:
        print(f"{made.study.name}: told {submitters} submitters and {lone} workers without one to save and stop")
    if not cancel_on_slurm(made, root) and not submitters and not lone:
        print(f"{made.study.name}: nothing is under way")


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="The start of a run's id, or its label.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    root: RootOption = Path("runs"),
) -> None:
    """Print the log of a run's newest attempt: of one that runs, that ended or that failed."""
    from .logs import show

    show(root, run, sys.stdout, follow=follow, say=lambda line: print(line, file=sys.stderr))


@app.command(name="run")
def run_one(
    spec: Annotated[Path, typer.Argument(help="JSON file with the specification of one run.")],
    root: RootOption = Path("runs"),
) -> None:
    """Execute one run, after its tokenizer if that is not done, and wait for it."""
    from scaling.specification.spec import GeneratorRun
    from sweeps.planning.plan import Plan
    from sweeps.planning.planned_run import planned
    from sweeps.study.external_run import parse_any_run
    from sweeps.study.study import About, Limits, Run, Study

    try:
        parsed = parse_any_run(spec.read_bytes())
    except OSError as error:
        raise UsageError(f"spec = {str(spec)!r} cannot be read: {error.strerror}") from error
    runs: list[Run] = [parsed.tokenizer, parsed] if isinstance(parsed, GeneratorRun) else [parsed]
    study = Study(About(name="run"), {}, (), Limits(), str(spec))
    made = Plan(study, tuple(map(planned, runs)))
    raise typer.Exit(_submit_and_show(made, root, 1, over_limit=True, retry=True, again=False).exit_code)


@app.command()
def doctor(root: RootOption = Path("runs")) -> None:
    """Check this machine: Python and packages, clashes of import names, data, disk, file system."""
    from .doctor import examine

    findings = examine(root)
    for finding in findings:
        print(f"{finding.verdict:<8} {finding.subject}: {finding.detail}")
    raise typer.Exit(int(any(finding.verdict == "problem" for finding in findings)))


def _load(study: str, sets: Iterable[str] | None, root: Path) -> Plan:
    from sweeps.planning.plan import make_plan
    from sweeps.study.study import load_study

    return make_plan(load_study(study, list(sets or ()), root))


def _check_trainers(made: Plan) -> None:
    """Raise UsageError for a trainer of one's own that is not where the study says, before anything is written."""
    from sweeps.record.code_snapshot import check_commands

    if (source := Path(made.study.source)).is_file():
        check_commands(source, {run.spec.trainer for run in made.runs if run.spec.trainer})


def _submit_and_show(
    made: Plan,
    root: Path,
    jobs: int,
    *,
    over_limit: bool,
    only: set[str] | None = None,
    debug: bool = False,
    retry: bool = False,
    again: bool = True,
) -> SubmissionSummary:
    """Submit, show progress, and say how it ended."""
    from sweeps.backends.launch import submit as execute
    from sweeps.backends.launch import submit_debug, to_do
    from sweeps.backends.progress import view

    from .views import print_summary

    left = to_do(made, root, only)
    if not left:
        print(f"{made.study.name}: nothing to do, all {len(made.runs)} runs are done")
    if debug:
        summary = submit_debug(made, root, over_limit=over_limit, only=only, say=lambda line: print(line, flush=True))
    else:
        with view() as shown:
            summary = execute(
                made, root, jobs=jobs, over_limit=over_limit, only=only, retry=retry, again=again, observe=shown,
                say=shown.say,
            )  # fmt: skip
    if left:
        print_summary(made, summary)
    return summary


def _submit_detached(
    made: Plan, root: Path, jobs: int, over_limit: bool, only: set[str] | None = None, retry: bool = False
) -> None:
    """Submit, and say so and what is left alone; exit code 1 if that is because it failed."""
    from sweeps.backends.launch import set_aside, submit_detached, to_do

    from .views import print_outcomes

    left = to_do(made, root, only)
    aside = set_aside(made, root, left, retry)
    submission = submit_detached(
        made, root, jobs=jobs, over_limit=over_limit, only=only, retry=retry,
        say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if submission is not None:
        print(f"submitted {submission.id}; `tokenlaw status {made.study.source} --watch` shows how it goes")
    elif left:
        print(f"{made.study.name}: nothing to begin, {len(left)} of {len(made.runs)} runs have no result")
    else:
        print(f"{made.study.name}: nothing to do, all {len(made.runs)} runs are done")
    print_outcomes(made, aside)
    if any(outcome.result == "failed" for outcome in aside.values()):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the command."""
    # Nothing that it or its jobs write is writable for everybody, whatever the user's mask allows.
    os.umask(os.umask(0o077) | stat.S_IWOTH)
    app()


if __name__ == "__main__":
    main()
