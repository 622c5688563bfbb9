"""A virtual environment with the project and what its tests need from Python's packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["ROOT", "Environment", "SetupFailed"]

ROOT: Path = Path(__file__).resolve().parents[2]

#: Without these no test runs.
_CORE = ("pytest", "xdist", "pytest_timeout", "hypothesis", "typing_extensions")

_NAME = "GEARMAN_POOL_TESTS_ENVIRONMENT"

#: Prints the project's extras as JSON. Python 3.10 has no reader of TOML, but its pip does.
_EXTRAS = """
import json, sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file:
    print(json.dumps(tomllib.load(file)["project"]["optional-dependencies"]))
"""


class SetupFailed(Exception):
    """There is no environment to run tests in; the text says why, and what can be done."""


class Environment:
    """The environment of the tests, made when it is first asked for and whenever the project's requirements change.

    Attributes:
        python: The path of its interpreter.
        left_out: The requirements that could not be installed.
    """

    def __init__(self) -> None:
        flags = getattr(sys, "abiflags", "")
        name = f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}{flags}"
        self._folder = Path(os.environ.get(_NAME) or ROOT / ".venv-tests" / name).absolute()
        self._stamp = self._folder / "installed"
        self.python: str = str(self._folder / "bin" / "python")
        self.left_out: list[str] = []

    def make(self) -> None:
        """Make it, if it does not stand as it should.

        Raises:
            SetupFailed: It cannot be made, and the interpreter that runs this does not have what the tests need.
        """
        if self._is_current():
            return
        print(f"Making the tests' environment in {self._folder}: this takes a minute or two ...", flush=True)
        if self._make_empty():
            self._fill()
        elif all(find_spec(name) for name in _CORE):
            print("This Python cannot make an environment; the tests run with what it has itself.", flush=True)
            self.python = sys.executable
        else:
            raise SetupFailed(
                "This Python cannot make virtual environments (venv and ensurepip, or venv and pip, are missing), and "
                f"it does not have itself what the tests need: {', '.join(_CORE)}."
            )

    def _is_current(self) -> bool:
        try:
            version, *self.left_out = self._stamp.read_text().splitlines()
        except (OSError, ValueError):
            return False
        return version == self._version() and os.access(self.python, os.X_OK)

    def _version(self) -> str:
        text = f"{sys.version}\n{(ROOT / 'pyproject.toml').read_text()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _make_empty(self) -> bool:
        """Make it with nothing in it but pip; tell whether that was possible."""
        shutil.rmtree(self._folder, ignore_errors=True)
        ways = [
            # The second is for a Python with pip and without ensurepip.
            ([sys.executable, "-m", "venv", str(self._folder)], ("venv", "ensurepip")),
            ([sys.executable, "-m", "venv", "--without-pip", str(self._folder)], ("venv", "pip")),
            ([sys.executable, "-m", "virtualenv", "-q", str(self._folder)], ("virtualenv",)),
        ]
        for command, modules in ways:
            if not all(find_spec(name) for name in modules):
                continue
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and self._pip("--version", quiet=True):
                return True
            print(done.stdout + done.stderr, flush=True)
            shutil.rmtree(self._folder, ignore_errors=True)
        return False

    def _fill(self) -> None:
        if not self._pip("install", "-e", f"{ROOT}[test]"):
            # One package that cannot be had for this interpreter must not keep the others away.
            if not self._pip("install", "-e", str(ROOT)):
                raise SetupFailed("The project itself could not be installed; what pip said stands above.")
            self.left_out = [name for name in self.requirements() if not self._pip("install", name)]
        if missing := [name for name in _CORE if not self._has(name)]:
            raise SetupFailed(f"Without {', '.join(missing)} no test runs; what pip said stands above.")
        self._stamp.write_text("\n".join([self._version(), *self.left_out]))

    def _pip(self, *arguments: str, quiet: bool = False) -> bool:
        """Run pip; tell whether it succeeded, and show what it said if not."""
        pip = [self.python, "-m", "pip"] if self._has("pip") else [sys.executable, "-m", "pip", "--python", self.python]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        # A person sees the progress, a log only what went wrong.
        talk = sys.stdout.isatty() and not quiet
        done = subprocess.run(
            [*pip, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if talk else subprocess.PIPE,
            stderr=None if talk else subprocess.STDOUT,
            check=False,
        )
        if done.returncode and done.stdout:
            print("\n".join(done.stdout.decode(errors="replace").splitlines()[-30:]), flush=True)
        return done.returncode == 0

    def _has(self, module: str) -> bool:
        program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        return subprocess.run([self.python, "-c", program], cwd="/", check=False).returncode == 0

    def requirements(self) -> list[str]:
        """Return the single requirements of the extra [test], those of the extras that it names included."""
        command = [self.python, "-c", _EXTRAS, str(ROOT / "pyproject.toml")]
        extras = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        found: list[str] = []
        names = ["test"]
        for name in names:
            for requirement in extras[name]:
                own = re.fullmatch(r"gearman_pool\[(.*)\]", requirement)
                if own:
                    names += [more for more in own[1].split(",") if more not in names]
                else:
                    found.append(requirement)
        return found
