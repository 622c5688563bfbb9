"""Mutations of the structure: who imports whom."""

from __future__ import annotations

from .mutation import Mutation

MUTATIONS = [
    Mutation(
        name="arrow-up-for-type-checkers",
        file="gearman_pool/transport/connection.py",
        old="if TYPE_CHECKING:\n",
        new="if TYPE_CHECKING:\n    from ..future import JobFuture\n",
        tests=("tests/test_architecture.py::test_imports_point_down",),
        breaks="Nothing yet; but two rooms can only be read together.",
    ),
    Mutation(
        name="arrow-up-inside-a-function",
        file="gearman_pool/encoders.py",
        old="def encode_payload(encoder: Encoder, payload: Any) -> bytes:\n",
        new="def encode_payload(encoder: Encoder, payload: Any) -> bytes:\n    from . import client\n",
        tests=("tests/test_architecture.py::test_imports_point_down",),
        breaks="Nothing yet; but the ground knows the roof.",
    ),
    Mutation(
        name="protocol-logs",
        file="gearman_pool/protocol/server/queues.py",
        old="from __future__ import annotations\n",
        new="from __future__ import annotations\n\nimport logging\n",
        tests=("tests/test_architecture.py::test_protocol_knows_no_io",),
        breaks="The state machines cannot be tested with bytes alone.",
    ),
    Mutation(
        name="package-loads-typing-extensions",
        file="gearman_pool/util.py",
        old="from __future__ import annotations\n",
        new="from __future__ import annotations\n\nimport typing_extensions\n",
        tests=(
            "tests/test_architecture.py::test_the_package_runs_without_typing_extensions_and_does_not_load_it",
            "tests/cli/commands/test_demo.py::test_the_first_command_of_the_readme_runs_in_a_clone_with_nothing_installed",
        ),
        breaks="The first command of the README fails in a fresh clone.",
    ),
]
