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

from . import data, fit, store
from .options import (
    ClusterOption,
    JobsOption,
    JsonOption,
    RootOption,
    SetOption,
    StudiesArgument,
    StudyArgument,
    WaitOption,
)
from .submitting import carry_out

if TYPE_CHECKING:
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
data.add_commands(app)


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
    from sweeps.worker.process import cores

    code = carry_out(plan, root, "local", jobs=jobs or min(cores(), 8))
    if code:
        raise typer.Exit(code)
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
    chosen = choose(next((each.study.hardware for each in plans if each.study.hardware), None), hardware, mfu)
    united = unite(plans)
    statuses = collect(united, root)
    done = [status.run.run_id for status in statuses if status.status == "done"]
    notices = [text for each in plans if (text := notice(done_with_other_code(each, root)))]
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
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Train again what was done with another version of the trainer's code.")
    ] = False,
    root: RootOption = Path("runs"),
) -> None:
    """Execute what a study lacks. Stopped or killed at any time, the same command goes on; twice, it does nothing."""
    study_plan = _load(study, sets, root)
    _check_trainers(study_plan)
    raise typer.Exit(carry_out(study_plan, root, cluster, jobs=jobs, wait=wait, over_limit=over_limit, rerun=rerun))


@app.command()
def status(
    study: StudyArgument,
    sets: SetOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds until nothing runs.")] = False,
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show how the runs of a study stand, here and in the queue of the cluster, with progress, causes and time left."""
    from sweeps.backends.slurm.view import cluster_view
    from sweeps.backends.status import collect

    from .views import print_status

    study_plan = _load(study, sets, root)
    while True:
        cluster = cluster_view(root)
        statuses = collect(study_plan, root, cluster)
        if as_json:
            runs = [s.as_json() for s in statuses]
            print(json.dumps({"study": study_plan.study.name, "runs": runs}, indent=None if watch else 1), flush=True)
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print_status(study_plan, statuses, cluster.complaint)
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

    study_plan = _load(study, sets, root)
    _check_trainers(study_plan)
    failed = {s.run.run_id for s in collect(study_plan, root) if s.status == "failed"}
    if not failed:
        print(f"{study_plan.study.name}: nothing failed")
        return
    only = failed | {run.run_id for run_id in failed for run in study_plan.dependents[run_id]}
    # A failed generator may wait for a tokenizer that is not done.
    only |= {parent for run_id in failed if (parent := study_plan.by_id[run_id].parent)}
    code = carry_out(study_plan, root, cluster, jobs=jobs, wait=wait, over_limit=True, only=only, retry=True)
    raise typer.Exit(code)


@app.command()
def cancel(study: StudyArgument, sets: SetOption = None, root: RootOption = Path("runs")) -> None:
    """Stop the runs of a study, here and on the cluster; they save checkpoints, and a later submit goes on."""
    from sweeps.backends.named import BACKENDS, backend

    study_plan = _load(study, sets, root)
    told = [words for name in BACKENDS if (words := backend(name).cancel(study_plan, root))]
    print("\n".join(f"{study_plan.study.name}: {words}" for words in told or ["nothing is under way"]))


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
    study_plan = Plan(study, tuple(map(planned, runs)))
    raise typer.Exit(carry_out(study_plan, root, "local", jobs=1, over_limit=True, retry=True, again=False))


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


def _check_trainers(study_plan: Plan) -> None:
    """Raise UsageError for a trainer of one's own that is not where the study says, before anything is written."""
    from sweeps.record.code_snapshot import check_commands

    if (source := Path(study_plan.study.source)).is_file():
        check_commands(source, {run.spec.trainer for run in study_plan.runs if run.spec.trainer})


def main() -> None:
    """Entry point of the command."""
    # Nothing that it or its jobs write is writable for everybody, whatever the user's mask allows.
    os.umask(os.umask(0o077) | stat.S_IWOTH)
    app()


if __name__ == "__main__":
    main()
