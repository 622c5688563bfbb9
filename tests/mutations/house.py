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
    Mutation(
        name="lock-that-no-page-names",
        file="gearman_pool/engine/announcer.py",
        old="        self._failed = False\n\n",
        new="        self._failed = False\n        self._told_lock = threading.Lock()\n\n",
        tests=(
            "tests/test_docs.py::test_page_on_threads_names_every_lock",
            "tests/test_docs.py::test_comments_say_what_a_lock_guards",
        ),
        breaks="Nobody can say from the page on threads which locks there are, and what may be held with them.",
    ),
    Mutation(
        name="way-leaves-a-move-out",
        file="gearman_pool/jobs/flight.py",
        old="            (JOB_PENDING, JOB_FAILED),\n",
        new="",
        tests=(
            "tests/jobs/test_way.py::test_every_move_of_a_job_stands_in_the_way_and_no_other",
            "tests/jobs/test_way.py::test_a_method_of_the_way_makes_the_moves_that_it_is_said_to_make[end]",
        ),
        breaks="The drawing of a job's way in the documentation says less than is so.",
    ),
    Mutation(
        name="way-names-another-thread",
        file="gearman_pool/jobs/flight.py",
        old='    Step("resolve", _IO,',
        new='    Step("resolve", _CALLBACK,',
        tests=(
            "tests/jobs/test_way.py::test_the_threads_of_the_way_are_those_that_call",
            "tests/jobs/test_way.py::test_a_step_follows_steps_of_the_way",
        ),
        breaks="The drawing of a job's way in the documentation shows a method in the wrong lane.",
    ),
]
