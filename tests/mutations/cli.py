"""Mutations of the command line."""

from __future__ import annotations

from .mutation import Mutation

_EXITS = "gearman_pool/cli/exits.py"
_LINES = "gearman_pool/cli/commands/submit_lines.py"
_SUPERVISOR = "gearman_pool/cli/processes/supervisor.py"
_COMMANDS = "tests/cli/commands/test_server_commands.py::"
_SUBMIT = "tests/cli/commands/test_submit.py::"
_SUBMIT_LINES = "tests/cli/commands/test_submit_lines.py::"
_WORK = "tests/cli/processes/test_supervisor.py::"

MUTATIONS = [
    Mutation(
        name="failed-job-is-0",
        file=_EXITS,
        old="    return TIMEOUT if isinstance(error, TimeoutError) else FAILED\n",
        new="    return TIMEOUT if isinstance(error, TimeoutError) else OK\n",
        tests=(
            _SUBMIT + "test_a_failed_job_is_1",
            _SUBMIT_LINES + "test_a_line_that_fails_is_told_and_the_others_go_on",
        ),
        breaks="A shell script goes on as if the job were done.",
    ),
    Mutation(
        name="lines-that-fail-are-0",
        file=_LINES,
        old="        self.code = self.code or code_of(error)\n",
        new="",
        tests=(_SUBMIT_LINES + "test_a_line_that_fails_is_told_and_the_others_go_on",),
        breaks="A shell script goes on as if all jobs were done.",
    ),
    Mutation(
        name="time-up-is-1",
        file=_EXITS,
        old="    return TIMEOUT if isinstance(error, TimeoutError) else FAILED\n",
        new="    return FAILED\n",
        tests=(_SUBMIT + "test_the_timeout_is_4",),
        breaks="Scripts cannot tell a job that failed from one that takes long.",
    ),
    Mutation(
        name="payload-in-the-line-of-an-error",
        file=_LINES,
        old="                self._fail(error)\n",
        new='                self._fail(GearmanError(f"{error}: {future.job.data!r}"))\n',
        tests=(_SUBMIT + "test_payloads_stay_out_of_the_lines_of_errors",),
        breaks="Payloads, secrets among them, stand in logs.",
    ),
    Mutation(
        name="dead-process-is-not-replaced",
        file=_SUPERVISOR,
        old="            slot.process = None\n            self._bury(slot, process, process.bury())\n",
        new=(
            "            slot.process = None\n"
            "            self._bury(slot, process, process.bury())\n"
            '            slot.due = float("inf")\n'
        ),
        tests=(_WORK + "test_a_killed_process_is_replaced",),
        breaks="Each process that dies is one less, until nobody works.",
    ),
    Mutation(
        name="process-that-cannot-start-is-replaced-without-a-pause",
        file=_SUPERVISOR,
        old="        return float(min(longest, first * 2 ** min(slot.failures - 1, 16)))\n",
        new="        return 0.0\n",
        tests=(_WORK + "test_a_process_that_dies_at_once_is_replaced_more_and_more_slowly",),
        breaks="A module with an error in it takes a whole processor.",
    ),
    Mutation(
        name="second-signal-does-not-kill",
        file=_SUPERVISOR,
        old="                self._each_process(WorkerProcess.kill)\n            else:",
        new="            else:",
        tests=(_WORK + "test_a_second_signal_kills",),
        breaks="Ctrl-C twice does not end workers whose jobs hang.",
    ),
    Mutation(
        name="tables-although-json-was-asked-for",
        file="gearman_pool/cli/terminal/output.py",
        old="    if as_json:\n",
        new="    if False:\n",
        tests=(_COMMANDS + "test_jobs_lists_unfinished_jobs", _COMMANDS + "test_ping_measures_each_server"),
        breaks="Programs that read the output fail.",
    ),
    Mutation(
        name="cancel-prints-no-json",
        file="gearman_pool/cli/commands/cancel.py",
        old="    if args.json:\n",
        new="    if False:\n",
        tests=(_COMMANDS + "test_cancel_as_json_says_what_was_cancelled",),
        breaks="Programs that read the output fail.",
    ),
]
