"""The program `aerogel`: its verbs, and what it does with errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError

import aerogel
from aerogel.cli import (
    condense,
    continual,
    demo,
    doctor,
    env,
    eval,
    export,
    judging,
    push,
    report,
    sample,
    size,
    slim,
    stages,
    student,
    trials,
    verify,
)
from aerogel.cli.failures import MISTAKE, guard
from aerogel.cli.invocation import record_words
from aerogel.core.allocation import keep_memory

_CODES = """
Exit codes: 0 done, 1 a problem found by doctor or verify, 2 a mistake in the
command or its data, 130 interrupted. --debug, anywhere, shows where an error
came from.
"""
_HELP = """Take the weight out of vision AI, and print the receipt."""
_EXAMPLES = f"""Examples:
  aerogel demo
  aerogel condense train/ --ipc 10
  aerogel condense --help
  aerogel sample aerogel/fashion-unet --class sneaker
  aerogel slim facebook/sam-vit-base --images photos/ --ratio 0.77
  aerogel --install-completion
{_CODES}"""
_Verb = tuple[str, Callable[..., int], str]

_CONDENSE_VERBS: tuple[_Verb, ...] = (
    ("teacher", stages.teacher_command, stages.examples_of("teacher")),
    ("select", stages.select_command, stages.examples_of("select")),
    ("generator", stages.generator_command, stages.examples_of("generator")),
    ("pack", stages.pack_command, stages.examples_of("pack")),
    ("student", student.student_command, student.EXAMPLES),
    ("eval", eval.eval_command, eval.EXAMPLES),
    ("continual", continual.continual_command, continual.EXAMPLES),
    ("verify", verify.verify_command, verify.EXAMPLES),
    ("size", size.size_command, size.EXAMPLES),
    ("push", push.push_command, push.EXAMPLES),
)
_SAMPLE_VERBS: tuple[_Verb, ...] = (
    ("plan", trials.plan_command, trials.PLAN_EXAMPLES),
    ("simulate", trials.simulate_command, trials.SIMULATE_EXAMPLES),
    ("verify", trials.verify_command, trials.VERIFY_EXAMPLES),
    ("bench", trials.bench_command, trials.BENCH_EXAMPLES),
)
_SLIM_VERBS: tuple[_Verb, ...] = (
    ("plan", slim.plan_command, slim.PLAN_EXAMPLES),
    ("eval", judging.eval_command, judging.EVAL_EXAMPLES),
    ("compare", judging.compare_command, judging.COMPARE_EXAMPLES),
)


def build_app() -> App:
    """Build the program with all its verbs."""
    program = App(
        name="aerogel",
        help=_HELP,
        help_epilogue=_EXAMPLES,
        help_format="plaintext",
        version=aerogel.__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    program.command(demo.demo_command, name="demo", help_epilogue=demo.EXAMPLES)
    program.command(build_group("condense", condense.condense_command, condense.EXAMPLES, _CONDENSE_VERBS))
    program.command(build_group("sample", sample.sample_command, sample.EXAMPLES, _SAMPLE_VERBS))
    program.command(build_group("slim", slim.slim_command, slim.EXAMPLES, _SLIM_VERBS))
    program.command(export.export_command, name="export", help_epilogue=export.EXAMPLES)
    program.command(report.report_command, name="report", help_epilogue=report.EXAMPLES)
    program.command(env.env_command, name="env", help_epilogue=env.EXAMPLES)
    program.command(doctor.doctor_command, name="doctor", help_epilogue=doctor.EXAMPLES)
    program.register_install_completion_command(help="Install completion for this shell.", help_epilogue="")
    return program


def build_group(name: str, act: Callable[..., int], examples: str, verbs: Sequence[_Verb]) -> App:
    """Build a command that acts by itself, with the verbs below it."""
    program = App(name=name, help_epilogue=examples)
    program.default(act)
    for number, (verb, call, shown) in enumerate(verbs):
        program.command(call, name=verb, help_epilogue=shown, sort_key=number)
    return program


app = build_app()


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``words`` default to those after the program's name.

    Without ``words`` the process is the program's own, and keeps freed memory for its next tensors.
    """
    if words is None:
        keep_memory()
    given = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]

    def act() -> int:
        try:
            done = app(given, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            if debug:
                raise
            sys.stderr.write(f"aerogel: {' '.join(str(error).split())}\nSee: {name_help(given)}\n")
            return MISTAKE
        return int(done) if isinstance(done, int) else 0

    with record_words(given):
        return guard(act, debug=debug)


def name_help(words: Sequence[str]) -> str:
    """Return the command that shows the help closest to a mistaken command line."""
    known, _, _ = app.parse_commands(list(words))
    return " ".join(["aerogel", *known, "--help"])
