"""``gearman-pool completion``: has a shell complete commands, options and their values.

The scripts come of the arguments that the subcommands add; the program hands the subcommands over in ``args.commands``.
No subcommand is run, and no server is asked: a script holds all that the shell offers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from shlex import quote
from typing import Any

from ..exits import OK
from ..terminal.output import PROGRAM

__all__ = ["HELP", "add_arguments", "run"]

HELP = "print a script that has a shell complete command lines"

EPILOG = f"""\
bash: put  source <({PROGRAM} completion bash)  into ~/.bashrc
zsh:  put  source <({PROGRAM} completion zsh)  into ~/.zshrc, after compinit
fish: {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("shell", choices=list(_SHELLS), help="the shell")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    commands = {}
    for name, module in args.commands.items():
        recorder = _Recorder(add_help=False)
        recorder.add_argument("-h", "--help", action="store_true", help="show what it takes")
        module.add_arguments(recorder)
        commands[name] = (module.HELP, [a for a in recorder.actions if a.help is not argparse.SUPPRESS])
    print("\n".join(_SHELLS[args.shell](commands)), flush=True)
    return OK


_Commands = dict[str, tuple[str, list[argparse.Action]]]


class _Recorder(argparse.ArgumentParser):
    """Keeps the arguments that a command adds: argparse has no public way to list them."""

    def __init__(self, **options: Any) -> None:
        self.actions: list[argparse.Action] = []
        super().__init__(**options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument, and remember it."""
        self.actions.append(super().add_argument(*names, **options))
        return self.actions[-1]


def _bash(commands: _Commands) -> list[str]:
    lines = [
        "_gearman_pool() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" words=""',
        '  case "${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]} $cur" in',
    ]
    for name, (_, actions) in commands.items():
        chosen = [(option, a) for a in actions for option in a.option_strings if a.choices]
        lines += [f'    "{name} {option} "*) words={_choices([action])} ;;' for option, action in chosen]
        options = [option for action in actions for option in action.option_strings if option.startswith("--")]
        lines.append(f'    "{name} "*" -"*) words={quote(" ".join(options))} ;;')
        lines.append(f'    "{name} "*) words={_choices([a for a in actions if not a.option_strings])} ;;')
    return [
        *lines,
        "  esac",
        f"  [ $COMP_CWORD -eq 1 ] && words={quote(' '.join([*commands, '--help', '--version']))}",
        '  COMPREPLY=( $(compgen -W "$words" -- "$cur") )',
        "}",
        f"complete -o default -F _gearman_pool {PROGRAM}",
    ]


def _choices(actions: list[argparse.Action]) -> str:
    return quote(" ".join(value for action in actions for value in action.choices or ()))


def _fish(commands: _Commands) -> list[str]:
    start = f"complete -c {PROGRAM}"
    lines = [f"{start} -n __fish_use_subcommand -f -a {name} -d {quote(text)}" for name, (text, _) in commands.items()]
    for name, (_, actions) in commands.items():
        for action in actions:
            words = [f"{start} -n '__fish_seen_subcommand_from {name}'"]
            words += [f"-l {o[2:]}" if o.startswith("--") else f"-s {o[1:]}" for o in action.option_strings]
            if action.choices:
                words.append(f"-x -a {_choices([action])}")
            elif action.option_strings and action.nargs != 0:
                words.append("-r")
            if action.option_strings:
                lines.append(" ".join([*words, f"-d {quote((action.help or '').partition('(default')[0].rstrip())}"]))
            elif action.choices:
                lines.append(" ".join(words))
    return lines


_SHELLS: dict[str, Callable[[_Commands], list[str]]] = {
    "bash": _bash,
    "zsh": lambda commands: ["autoload -Uz bashcompinit && bashcompinit", *_bash(commands)],
    "fish": _fish,
}
