"""Makes the worker that ``gearman-pool work`` is to run: of ``module:attribute``, or of a command.

For the main thread of a worker process. The supervisor never loads the user's code, which must not break it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ...worker import GearmanWorker
from ..exits import USAGE, CommandError
from ..servers import chosen
from .command_task import CommandTask

__all__ = ["make_worker"]


def make_worker(args: argparse.Namespace) -> GearmanWorker:
    """Return the worker that a command line asks for.

    Raises:
        CommandError: there is no such module or attribute, or no worker comes of it.
    """
    try:
        worker = _of_command(args) if args.command_line else _of_attribute(args)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), USAGE) from error
    if args.concurrency is not None:
        worker.concurrency = args.concurrency
    if args.max_jobs is not None:
        worker.max_jobs = args.max_jobs
    if args.shutdown_timeout is not None:
        worker.shutdown_timeout = args.shutdown_timeout
    if not worker.worker_abilities:
        raise CommandError(f"the worker of {args.worker} has no tasks: register some with @worker.task", USAGE)
    if not worker.connection_list:
        raise CommandError(
            f"the worker of {args.worker} has no servers: give GearmanWorker a list, or write a function that takes "
            "the servers and returns the worker",
            USAGE,
        )
    return worker


def _new_worker(args: argparse.Namespace) -> GearmanWorker:
    servers = chosen(args)
    return GearmanWorker(servers.addresses, **servers.options)


def _of_command(args: argparse.Namespace) -> GearmanWorker:
    worker = _new_worker(args)
    worker.register_task(args.task, CommandTask(args.command_line, args.task_timeout), args.task_timeout)
    return worker


def _of_attribute(args: argparse.Namespace) -> GearmanWorker:
    found = _load(args.worker)
    if args.task is not None:
        worker = _new_worker(args)
        worker.register_task(args.task, found, args.task_timeout)
        return worker
    if isinstance(found, GearmanWorker):
        if args.servers is not None:
            raise CommandError(
                f"{args.worker} is a worker with servers of its own: leave --servers out, or write a function that "
                "takes the servers and returns the worker",
                USAGE,
            )
        return found
    if not callable(found):
        kind = type(found).__name__
        raise CommandError(f"{args.worker} is of type {kind}; it must be a GearmanWorker, or return one", USAGE)
    made = _guarded(lambda: found(*_arguments(found, args)), f"{args.worker} failed")
    if not isinstance(made, GearmanWorker):
        raise CommandError(
            f"{args.worker} returned {type(made).__name__}, not a GearmanWorker; for a function that does the jobs, "
            "give --task NAME",
            USAGE,
        )
    return made


def _arguments(factory: Callable[..., Any], args: argparse.Namespace) -> list[Any]:
    """Return what to call a factory with: the servers, if it takes something."""
    parameters = inspect.signature(factory).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wants_servers = positional and (
        positional[0].default is inspect.Parameter.empty or positional[0].name == "host_list"
    )
    return [chosen(args).addresses] if wants_servers else []


def _load(place: str) -> Any:
    """Return what ``module:attribute`` names. Modules in the current directory are found too."""
    name, _, attribute = place.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _guarded(lambda: importlib.import_module(name), f"cannot import {name}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CommandError(f"{name} has no {attribute}", USAGE)
        found = getattr(found, part)
    return found


def _guarded(call: Callable[[], Any], what: str) -> Any:
    """Call the user's code, and say in one line what it raised and where."""
    try:
        return call()
    except CommandError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if frame.filename.startswith("<frozen") else f" ({frame.filename}, line {frame.lineno})"
        raise CommandError(f"{what}: {type(error).__name__}: {error}{where}", USAGE) from error
