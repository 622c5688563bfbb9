"""Mutations of the administrative text commands."""

from __future__ import annotations

from .mutation import Mutation

_TEXT = "gearman_pool/protocol/text.py"
_SESSION = "gearman_pool/protocol/admin.py"
_TESTS_TEXT = "tests/protocol/test_text.py::"
_TESTS_SESSION = "tests/protocol/test_admin.py::"

MUTATIONS = [
    Mutation(
        name="newline-accepted-in-an-argument",
        file=_TEXT,
        old='re.compile(rb"[ \\t\\r\\n\\v\\f\\0]")',
        new='re.compile(rb"[ \\t\\v\\f\\0]")',
        tests=(
            _TESTS_TEXT + "test_argument_that_would_make_other_words_is_refused",
            "tests/faults/test_bad_text.py::test_admin_client_refuses_bad_text_before_anything_is_written",
        ),
        breaks="A task's name from a stranger may be a command of its own: shutdown, for example.",
    ),
    Mutation(
        name="space-accepted-in-an-argument",
        file=_TEXT,
        old='re.compile(rb"[ \\t\\r\\n\\v\\f\\0]")',
        new='re.compile(rb"[\\t\\r\\n\\v\\f\\0]")',
        tests=(_TESTS_TEXT + "test_argument_that_would_make_other_words_is_refused",),
        breaks="Another task than the one that was named is dropped or limited.",
    ),
    Mutation(
        name="commands-end-with-a-bare-newline",
        file=_TEXT,
        old='_LINE_END = b"\\r\\n"',
        new='_LINE_END = b"\\n"',
        tests=(
            _TESTS_TEXT + "test_command_becomes_one_line",
            "tests/conformance/test_admin.py::test_created_function_is_known_by_its_whole_name_until_it_is_dropped",
        ),
        breaks="gearmand cuts the last letter of the function that is created.",
    ),
    Mutation(
        name="ok-is-part-of-the-value",
        file=_TEXT,
        old='return _text(line[2:].lstrip() if line == b"OK" or line.startswith(b"OK ") else line)',
        new="return _text(line)",
        tests=(_TESTS_TEXT + "test_value_comes_without_ok",),
        breaks='The version is "OK 1.1.20", and the process\'s number is no number.',
    ),
    Mutation(
        name="every-answer-is-ok",
        file=_TEXT,
        old='    if line != b"OK" and not line.startswith(b"OK "):\n',
        new="    if False:\n",
        tests=(_TESTS_TEXT + "test_ok_is_ok_and_nothing_else_is",),
        breaks="A command that was not obeyed seems to have been.",
    ),
    Mutation(
        name="answer-ends-at-a-line-that-begins-with-a-dot",
        file=_SESSION,
        old='        elif line == b".":\n',
        new='        elif line.startswith(b"."):\n',
        tests=(_TESTS_SESSION + "test_answers_are_told_apart_however_they_arrive",),
        breaks="Behind a task whose name begins with a dot the list ends, and the rest is the next command's answer.",
    ),
    Mutation(
        name="row-that-reads-like-an-error-is-one",
        file=_SESSION,
        old="        error = None if self._lines else parse_error(line, coded=True)\n",
        new="        error = parse_error(line, coded=True)\n",
        tests=(_TESTS_SESSION + "test_answers_are_told_apart_however_they_arrive",),
        breaks="A unique, which clients choose, may turn the list of uniques into an error.",
    ),
    Mutation(
        name="answer-of-any-size-is-kept",
        file=_SESSION,
        old="        if self._size > self._max_size:\n",
        new="        if False:\n",
        tests=(_TESTS_SESSION + "test_what_does_not_fit_the_order_raises_protocol_error",),
        breaks="A list without an end fills the memory.",
    ),
    Mutation(
        name="line-of-8192-bytes-sent",
        file="gearman_pool/protocol/limits.py",
        old="MAX_COMMAND_LENGTH = 8191",
        new="MAX_COMMAND_LENGTH = 8192",
        tests=(_TESTS_TEXT + "test_line_may_be_as_long_as_the_server_takes_and_no_longer",),
        breaks="gearmand closes the connection without an answer.",
    ),
    Mutation(
        name="six-words-sent",
        file="gearman_pool/protocol/limits.py",
        old="MAX_WORDS = 5",
        new="MAX_WORDS = 6",
        tests=(_TESTS_TEXT + "test_line_of_more_words_than_the_server_takes_is_refused",),
        breaks="gearmand closes the connection without an answer.",
    ),
]
