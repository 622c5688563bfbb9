"""``gearman-pool completion``, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ..running import PATIENCE, run

#: Sources the script and prints what the shell would offer for a command line.
BASH = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p gearman-pool | sed 's/.*-F \\([^ ]*\\).*/\\1/') gearman-pool
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    def make(shell):
        done = run("completion", shell)
        assert (done.returncode, done.stderr) == (0, b"")
        path = tmp_path_factory.mktemp(shell) / "completion"
        path.write_bytes(done.stdout)
        return path

    return make


def need(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@need("bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["su"], {"submit"}),
        (["st"], {"status"}),
        (["submit", "--pri"], {"--priority"}),
        (["submit", "task", "--priority", ""], {"high", "normal", "low"}),
        (["submit", "--priority", "h"], {"high"}),
        (["work", "--log-level", "d"], {"debug"}),
        (["work", "--child"], set()),
        (["serve", "--p"], {"--port"}),
        (["serve", "x"], set()),
        (["status", "submit", "--t"], {"--timeout"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["--v"], {"--version"}),
        (["nonsense", "--"], set()),
    ],
)
def test_bash_offers_commands_options_and_choices(script, words, offered):
    arguments = ["bash", "-c", BASH, "bash", script("bash"), "gearman-pool", *words]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@need("bash")
def test_bash_offers_all_commands(script):
    arguments = ["bash", "-c", BASH, "bash", script("bash"), "gearman-pool", ""]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert {"demo", "submit", "work", "top", "completion"} <= set(done.stdout.split())


@need("zsh")
def test_zsh_takes_its_script(script):
    # compinit asks for no terminal with -D; the function is then known for the command.
    program = 'autoload -Uz compinit && compinit -u -D; source "$1"; print -r -- $_comps[gearman-pool]'
    done = subprocess.run(
        ["zsh", "-f", "-c", program, "zsh", script("zsh")], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stderr == ""
    assert done.stdout.strip()


@pytest.mark.slow
@need("fish")
def test_fish_offers_commands_options_and_choices(script):
    def offered(line):
        program = f"source {script('fish')}; complete -C {line!r}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        assert done.stderr == ""
        return {line.split("\t")[0] for line in done.stdout.splitlines()}

    assert offered("gearman-pool su") == {"submit"}
    assert "--priority" in offered("gearman-pool submit --pri")
    assert offered("gearman-pool submit --priority h") == {"high"}
    assert offered("gearman-pool completion ") == {"bash", "zsh", "fish"}


def test_a_shell_that_is_not_known_is_2():
    assert run("completion", "tcsh").returncode == 2
