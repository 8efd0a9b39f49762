"""The command line: one file a verb, each a thin shell over a function that Python users call.

Nothing here imports torch before a verb needs it, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from lightning_zoo import __version__
from lightning_zoo.errors import NotFiniteError, Stopped, ZooError, nearest, unknown
from lightning_zoo.recipe.trust import trust

# verb: (what it does, its module); the order is that of --help
VERBS = {
    "finetune": "train a model of the zoo on your own folder of data",
    "data": "check, show and convert your own data",
    "fit": "train what a recipe says",
    "launch": "print how to start a recipe on several GPUs or machines",
    "validate": "measure a run or published weights on the validation split",
    "test": "the same on the test split",
    "replay": "find what made a loss that is no finite number",
    "report": "one HTML page of a run: curves, classes, thresholds, mistakes",
    "predict": "use a model on photos or videos",
    "export": "write a model as ONNX or as a torch.export program",
    "quantize": "bring a trained classifier to INT8, and measure it",
    "demo": "data made on the spot, training and pictures in a minute or two",
    "recipes": "list, show, copy and check recipes",
    "models": "list and show the models",
    "doctor": "look over this machine before a long run",
    "benchmark": "measure the loader, the start-up and the training step",
}

HELP = """usage: python -m lightning_zoo VERB ...

The classic torchvision model zoo, trained and measured with Lightning recipes.

{verbs}

  python -m lightning_zoo fit --recipe resnet50 --data.root data/imagenet
  python -m lightning_zoo VERB --help   (--version shows the version)
After any verb: --debug shows a traceback, --trust lets recipes bring code.
"""


class Parser(argparse.ArgumentParser):
    """Answers a mistyped option or choice in one sentence, with the nearest right one."""

    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what was given, for :meth:`error`."""
        self.given = [] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def long_options(self) -> list[str]:
        """Return the options that begin with two dashes, those of verbs within this one too."""
        found: list[str] = []
        for action in self._actions:
            found += [option for option in action.option_strings if option.startswith("--")]
            for parser in action.choices.values() if isinstance(action.choices, dict) else ():
                found += parser.long_options()
        return list(dict.fromkeys(found))

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise what argparse would print with a page of usage."""
        for option in (token.partition("=")[0] for token in self.given):
            if option[:2] != "--" or "." in option or option in self.long_options():
                continue
            if (guess := nearest(option, self.long_options())) is not None:
                raise ZooError(f"unknown option '{option}'; did you mean {guess}?")
        if "invalid choice: " in message and "(choose from " in message:
            name = message.split("invalid choice: ")[1].split(" (choose from ")[0].strip("'\"")
            listed = message.split("(choose from ")[1].rstrip(")")
            kind = message.split(":")[0].removeprefix("argument ").lower()
            if kind.startswith("{"):  # how argparse calls the verbs within a verb
                kind = f"verb of {self.prog.split()[-1]}"
            raise unknown(kind, name, [c.strip(" '\"") for c in listed.split(",")])
        raise ZooError(f"{message}; see: {self.prog} --help")


def new_parser(verb: str, description: str, epilog: str = "", usage: str | None = None) -> Parser:
    """Return the parser of one verb."""
    return Parser(
        prog=f"python -m lightning_zoo {verb}",
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 for a failed check, 2 for a mistake."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(
            HELP.format(verbs="\n".join(f"  {v:<10} {text}" for v, text in VERBS.items())), end=""
        )
        return 0
    if args[0] in ("-V", "--version"):
        print(f"lightning_zoo {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    debug, trusting = "--debug" in rest, "--trust" in rest
    rest = [a for a in rest if a not in ("--debug", "--trust")]
    # torch's CPU threads spin while they wait for each other; where other programs want the cores,
    # long spinning makes training many times slower, and this many turns lose nothing elsewhere
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        if verb not in VERBS:
            raise unknown("verb", verb, VERBS, "see: python -m lightning_zoo --help")
        module = importlib.import_module(f"lightning_zoo.cli.{verb}")
        with trust() if trusting else contextlib.nullcontext():
            return int(module.run(rest, debug=debug) or 0)
    except ZooError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, NotFiniteError) else 2
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        text = str(error).strip().splitlines()
        line = text[0] if text else ""
        print(
            f"error: {type(error).__name__}: {line}\n"
            "this was not foreseen; the same command with --debug shows where it happened",
            file=sys.stderr,
        )
        return 1
