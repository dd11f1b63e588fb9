"""The command line: parse, then import.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C (what was done so far is on disk).
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

_DESCRIPTION = """Know noise from signal in group-relative policy optimisation (GCPO, arXiv 2605.21801)."""
_TRAIN = """Post-train a policy. With no arguments: the starter policy on a built-in task with recipe gcpo.
Any field of GCPOConfig can be set as key=value, e.g. max_steps=20 learning_rate=3e-4 gcpo_alpha=2."""


_SFT = """Fine-tune a policy on gold solutions (TRL's SFTTrainer), so that it half knows a task before gcpo train.
Any field of SFTConfig can be set as key=value, e.g. max_steps=20 learning_rate=5e-5. The model is in DIR/model."""
_EVAL = """Ask a model the held-out prompts: greedy accuracy, pass@1, unbiased pass@k and majority vote, with intervals
over prompts. With --against MODEL a paired test of the two. What was wrong is kept in failures.jsonl."""
_BENCH = """Train recipes on tasks, paired by seed, each with the learning rate it does best with on other seeds, and
compare them with intervals. Every run is a gcpo train of its own. The same command goes on where it was stopped."""
_PROBE = """Sample groups, compute every signal and the true variance of the gradient, and say which signal tracks it;
then compare the updates of recipes with the true gradient. Writes tracking.json, alignment.json and report.html."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = _parse(argv)
    from gcpo.experiment.settings import RunError, UsageError

    # Hosts print as they please; standard output belongs to the result.
    elsewhere = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    try:
        with elsewhere:
            result, text = arguments.run(arguments)
    except (UsageError, RunError) as error:
        print(f"gcpo {arguments.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"\ngcpo {arguments.command}: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2) if arguments.json else text)
    status = result.get("status") if isinstance(result, dict) else None
    return {"interrupted": 130, "failed": 1}.get(str(status), 0)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of a command; overrides may stand anywhere among the flags."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON document on standard output")
    parser = argparse.ArgumentParser(prog="gcpo", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str, description: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            parents=[common],
            help=summary,
            description=description or summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    train = command("train", _train, "post-train a policy; with no arguments the quickstart", _TRAIN)
    train.add_argument("--recipe", help="gcpo list recipes shows them (gcpo)")
    _subject(train)

    sft = command("sft", _sft, "teach a policy gold solutions, before RL", _SFT)
    _subject(sft)
    for trains in (train, sft):
        trains.add_argument("--lora", action="store_const", const=True, help="train LoRA adapters, merged at the end")

    evaluation = command("eval", _eval, "pass@1 and pass@k with intervals; two models on the same prompts", _EVAL)
    evaluation.add_argument("--against", metavar="MODEL", help="a second model to compare on the same prompts")
    evaluation.add_argument("--samples", type=int, metavar="N", help="responses sampled a prompt (4)")
    evaluation.add_argument("--prompts", type=int, metavar="N", help="prompts (all that are held out)")
    _subject(evaluation)

    probe = command("probe", _probe, "how well each signal tracks gradient variance here, and recipes align", _PROBE)
    probe.add_argument("--recipe", help="recipe whose signal the two gaps are about (gcpo-cd)")
    probe.add_argument("--groups", type=int, metavar="N", help="prompts to sample (128)")
    probe.add_argument("--group-size", type=int, metavar="G", help="responses a group (8)")
    _subject(probe)

    bench = command(
        "bench", _bench, "recipes x tasks x models x learning rates x seeds, paired, with intervals", _BENCH
    )
    bench.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="TOML file (a small built-in bench)")
    bench.add_argument("--output", type=Path, metavar="DIR", help="directory of the bench (runs/bench-NAME)")
    bench.add_argument("--export", type=Path, metavar="DIR", help="write the tables there as Markdown and CSV")
    bench.add_argument(
        "--runs", type=Path, metavar="FILE", help="finished runs: those in it are not run again, new ones are added"
    )
    bench.add_argument("--jobs", type=int, metavar="N", help="runs at a time, a thread each (cores; 1 with a GPU)")

    report = command("report", _report, "draw the page of one or several run directories")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    report.add_argument("--output", type=Path, metavar="FILE", help="where to write the page (RUN/report.html)")

    listing = command("list", _list, "signals, recipes, tasks and models, each with its reference")
    listing.add_argument(
        "kind", nargs="?", choices=("signals", "recipes", "tasks", "rewards", "models"), help="all without it"
    )

    listing.add_argument("--signals", type=Path, metavar="FILE", help="Python file of your own signals; it is run")

    command("doctor", _doctor, "versions, devices, host hooks, and what is missing")
    return parser


def _subject(command: argparse.ArgumentParser) -> None:
    """Flags of a command on a model and a task."""
    command.add_argument(
        "--task", help="built-in task, benchmark or reasoning-gym/NAME, see gcpo list tasks (countdown)"
    )
    command.add_argument("--model", help="packaged name, path or hub id of a causal language model (starter)")
    command.add_argument(
        "--data", metavar="DATA", help="file, directory or hub id of prompts and answers; docs/data.md"
    )
    command.add_argument("--test-data", metavar="DATA", help="the same to test on (a tenth of --data, held out)")
    command.add_argument("--prompt-field", metavar="NAME", help="field of --data that holds the prompt (prompt)")
    command.add_argument("--answer-field", metavar="NAME", help="field of --data that holds the answer (answer)")
    command.add_argument("--prompt-template", metavar="TEXT", help="wording of the prompt, {name} stands for a field")
    command.add_argument("--system", metavar="TEXT", help="system prompt")
    command.add_argument("--few-shot", type=int, metavar="N", help="problems shown solved before each prompt (0)")
    command.add_argument(
        "--reward", metavar="[WEIGHT*]NAME,...", help="gcpo list rewards, or module:function, imported"
    )
    command.add_argument("--signals", metavar="FILE", help="Python file of your own signals; it is run")
    command.add_argument("--seed", type=int, help="seed of prompts, sampling and data order (0)")
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="run directory (runs/...); an unfinished one resumes"
    )
    command.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, e.g. a run's config.yaml")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="any setting, see docs/*.md")


def _train(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from gcpo.experiment.settings import TrainSettings

    settings = _settings(TrainSettings, arguments)
    from gcpo.experiment.train import train

    output = arguments.output or _directory(settings.subject, settings.recipe)
    summary = train(settings, output)
    return summary, _train_table(summary, output)


def _sft(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from gcpo.experiment.settings import SFTSettings

    settings = _settings(SFTSettings, arguments)
    from gcpo.experiment.sft import sft

    output = arguments.output or _directory("sft", settings.subject)
    summary = sft(settings, output)
    return summary, _train_table(summary, output)


def _eval(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from gcpo.experiment.settings import EvalSettings

    settings = _settings(EvalSettings, arguments)
    from gcpo.experiment.assess import assess

    output = arguments.output or _directory("eval", settings.subject)
    summary = assess(settings, output)
    if summary["status"] == "interrupted":
        return summary, f"interrupted; the same command with --output {output} goes on"
    return summary, f"{Path(summary['table']).read_text()}failures: {summary['failures']}\nreport: {summary['report']}"


def _settings(kind: Any, arguments: argparse.Namespace) -> Any:
    from gcpo.experiment.resolve import own, resolve

    flags = {name: getattr(arguments, name) for name in own(kind) if hasattr(arguments, name)}
    return resolve(kind, flags, arguments.config, arguments.overrides)


def _directory(*words: str) -> Path:
    return Path("runs") / "-".join([*words, datetime.now().strftime("%Y%m%d-%H%M%S")])


def _train_table(summary: dict[str, Any], output: Path) -> str:
    lines = [f"{'':8}{'accuracy':>10}{'95 % interval':>18}{'prompts':>9}"]
    for name in ("before", "after"):
        if result := summary[name]:
            low, high = (100 * x for x in result["ci95"])
            lines.append(f"{name:8}{100 * result['accuracy']:>8.1f} %{low:>10.1f} to {high:.1f}{result['n']:>9}")
    if "change" in summary:
        low, high = (100 * x for x in summary["change"]["ci95"])
        lines.append(f"{'change':8}{100 * summary['change']['accuracy']:>+8.1f}  {low:>+10.1f} to {high:+.1f}")
    if summary["status"] == "interrupted":
        lines.append(f"interrupted after {summary['steps']} steps; the same command with --output {output} goes on")
    lines.append(f"model: {output / 'model'}")
    lines.append(f"report: {summary['report'] or f'gcpo report {output} draws it'}")
    return "\n".join(lines)


def _probe(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from gcpo.experiment.settings import ProbeSettings

    settings = _settings(ProbeSettings, arguments)
    from gcpo.experiment.probe import probe

    summary = probe(settings, arguments.output or _directory("probe", settings.subject))
    tracking, aligned = (json.loads(Path(summary[name]).read_text()) for name in ("tracking", "alignment"))
    written = f"written to {summary['tracking']}\nreport: {summary['report']}"
    text = [_tracking_table(tracking), _gaps(tracking), _alignment_table(aligned), written]
    return summary | {"tracking": tracking, "alignment": aligned}, "\n\n".join(text)


def _bench(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from importlib.resources import files

    from gcpo.experiment.bench.plan import read
    from gcpo.experiment.settings import UsageError

    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {arguments.jobs}.")
    config = arguments.config or Path(str(files("gcpo.experiment.bench").joinpath("default.toml")))
    plan = read(config)
    from gcpo.experiment.bench.bench import bench
    from gcpo.experiment.bench.export import export, tables, text
    from gcpo.experiment.rundir import writing

    output = arguments.output or Path("runs", f"bench-{config.stem}")
    result = bench(plan, output, arguments.jobs, arguments.runs)
    if arguments.export is not None:
        with writing(arguments.export):
            export(result, arguments.export)
    failed = [f"FAILED {cell}: {reason}" for cell, reason in result["failed"].items()]
    return result, "\n\n".join([*map(text, tables(result)), *failed, f"report: {output / 'report.html'}"])


_GAPS = ("anisotropic_gap", "calibration_gap")


def _tracking_table(tracking: dict[str, Any]) -> str:
    rows = {name: row for name, row in tracking.items() if name not in _GAPS}
    targets = list(next(iter(rows.values())))
    lines = ["Spearman correlation with", " " * 31 + "".join(f"{target:>27}" for target in targets)]
    lines += [
        f"{name:<31}" + "".join(f"{_cell(row[t]['spearman']):>27}" for t in targets) for name, row in rows.items()
    ]
    return "\n".join(lines)


def _gaps(tracking: dict[str, Any]) -> str:
    lines = []
    for name in _GAPS:
        for which in ("same", "fresh"):
            values = {k: _cell(v) for k, v in tracking[name][which].items()}
            lines.append(f"{name} ({which} responses): " + ", ".join(f"{k} {v}" for k, v in values.items()))
    return "\n".join(lines)


def _alignment_table(aligned: dict[str, Any]) -> str:
    lines = ["cosine with the true gradient, and gain over grpo (over group sizes: over the plan's)"]
    for name, row in aligned.items():
        cells = [f"{condition}: {c['cosine']:.3f} {_cell(c['relative'], 100)} %" for condition, c in row.items()]
        lines.append(f"{name:<16}" + "   ".join(cells))
    return "\n".join(lines)


def _cell(estimate: dict[str, Any], factor: float = 1) -> str:
    if estimate["value"] is None or estimate["ci95"] is None:
        return "-"
    value, (low, high) = estimate["value"], estimate["ci95"]
    digits = 1 if factor > 1 else 2
    return f"{factor * value:+.{digits}f} ({factor * low:+.{digits}f}..{factor * high:+.{digits}f})"


def _report(arguments: argparse.Namespace) -> tuple[dict[str, str], str]:
    from gcpo import report
    from gcpo.experiment.settings import UsageError

    try:
        page = str(report.build(arguments.runs, arguments.output))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return {"report": page}, page


def _list(arguments: argparse.Namespace) -> tuple[dict[str, dict[str, str]], str]:
    from gcpo import policies
    from gcpo.experiment.settings import UsageError
    from gcpo.recipes import RECIPES
    from gcpo.signals import SIGNALS, load_file
    from gcpo.tasks import TASKS
    from gcpo.tasks.benchmarks import BENCHMARKS
    from gcpo.tasks.gym import PREFIX
    from gcpo.tasks.rewards import REWARDS

    try:
        if arguments.signals is not None:
            load_file(arguments.signals)
    except ValueError as error:
        raise UsageError(str(error)) from error
    tables = {
        "signals": {s.name: f"{s.summary} [{s.source}]" for s in SIGNALS.values()},
        "recipes": {r.name: f"{r.describe()} [{r.source}]" for r in RECIPES.values()},
        "tasks": {t.name: t.summary for t in TASKS.values()}
        | {b.name: b.summary for b in BENCHMARKS.values()}
        | {f"{PREFIX}NAME": "Any data set of reasoning-gym, scored by it."},
        "rewards": {name: make(None).summary for name, make in REWARDS.items()},
        "models": {name: str(path) for name, path in policies.POLICIES.items()}
        | {m.name: m.summary for m in policies.PACKAGED.values()},
    }
    shown = {kind: rows for kind, rows in tables.items() if arguments.kind in (None, kind)}
    width = max(len(name) for rows in shown.values() for name in rows)
    blocks = [
        "\n".join([kind, *(f"  {name:<{width}} {text}" for name, text in rows.items())])
        for kind, rows in shown.items()
    ]
    return shown, "\n\n".join(blocks)


def _doctor(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from gcpo.experiment.doctor import examine

    findings = examine()
    return findings, "\n".join(f"{name:<24} {value}" for name, value in findings.items())


if __name__ == "__main__":
    sys.exit(main())
