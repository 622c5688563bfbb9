"""Mutations of the protocol and of the limits of names."""

from __future__ import annotations

from .mutation import Mutation

_VALUES = "gearman_pool/protocol/values.py"
_LIMITS = "gearman_pool/protocol/limits.py"
_PACKETS = "gearman_pool/protocol/packets.py"
_SESSION = "gearman_pool/protocol/client.py"
_REPLIES = "gearman_pool/protocol/session.py"
_TESTS_PACKETS = "tests/protocol/test_packets.py::"
_TESTS_VALUES = "tests/protocol/test_values.py::"
_OUTCOMES = "tests/conformance/test_outcomes.py::"
_TESTS_SESSION = "tests/protocol/test_session.py::"
_CORPUS = "tests/faults/test_fuzz.py::test_corpus_gives_the_same_events_whole_and_byte_by_byte_or_a_protocol_error"
_LONGEST = _TESTS_VALUES + "test_longest_names_are_those_that_the_documents_promise"

MUTATIONS = [
    # ---- limits ----------------------------------------------------------------------------------------------------
    Mutation(
        name="unique-of-64-bytes-accepted",
        file=_LIMITS,
        old="MAX_UNIQUE_BYTES = 63",
        new="MAX_UNIQUE_BYTES = 64",
        tests=(_LONGEST,),
        breaks="gearmand cuts the unique: jobs of different uniques are taken for one, and it cannot be asked for.",
    ),
    Mutation(
        name="unique-of-63-bytes-refused",
        file=_LIMITS,
        old="MAX_UNIQUE_BYTES = 63",
        new="MAX_UNIQUE_BYTES = 62",
        tests=(
            _LONGEST,
            "tests/conformance/test_uniques.py::test_unique_of_63_bytes_coalesces_and_reaches_the_worker_whole",
        ),
        breaks="A unique that the server takes is refused.",
    ),
    Mutation(
        name="task-of-513-bytes-accepted",
        file=_LIMITS,
        old="MAX_TASK_BYTES = 512",
        new="MAX_TASK_BYTES = 513",
        tests=(_LONGEST,),
        breaks="The documented limit is another than the real one.",
    ),
    Mutation(
        name="task-of-512-bytes-refused",
        file=_LIMITS,
        old="MAX_TASK_BYTES = 512",
        new="MAX_TASK_BYTES = 511",
        tests=(_LONGEST,),
        breaks="The documented limit is another than the real one.",
    ),
    Mutation(
        name="client-id-of-128-bytes-accepted",
        file=_LIMITS,
        old="MAX_CLIENT_ID_BYTES = 127",
        new="MAX_CLIENT_ID_BYTES = 128",
        tests=("tests/test_worker.py::test_client_id_that_spoils_the_servers_list_is_refused",),
        breaks="The server cuts the name, in the middle of a character perhaps.",
    ),
    Mutation(
        name="client-id-of-127-bytes-refused",
        file=_LIMITS,
        old="MAX_CLIENT_ID_BYTES = 127",
        new="MAX_CLIENT_ID_BYTES = 126",
        tests=("tests/engine/worker/test_abilities.py::test_longest_client_id_stands_whole_in_the_servers_list",),
        breaks="A name that the server takes is refused.",
    ),
    Mutation(
        name="handle-of-64-bytes-asked-about",
        file=_LIMITS,
        old="MAX_HANDLE_BYTES = 63",
        new="MAX_HANDLE_BYTES = 64",
        tests=("tests/conformance/test_uniques.py::test_handle_that_the_server_would_not_answer_is_refused",),
        breaks="gearmand does not answer, and takes later answers for that one.",
    ),
    Mutation(
        name="nul-accepted-in-a-name",
        file=_VALUES,
        old='    if b"\\0" in encoded:\n',
        new="    if False:\n",
        tests=(_TESTS_VALUES + "test_name_that_would_break_the_packet_is_refused",),
        breaks="What follows the NUL is taken for the next argument: the payload of a job begins with it.",
    ),
    Mutation(
        name="nul-accepted-by-the-packer",
        file=_PACKETS,
        old='        if b"\\0" in value:\n',
        new="        if False:\n",
        tests=(_TESTS_PACKETS + "test_only_the_last_argument_may_hold_nul_bytes",),
        breaks="Arguments of a packet are shifted.",
    ),
    # ---- the decoder -----------------------------------------------------------------------------------------------
    Mutation(
        name="packet-of-any-size-is-read",
        file=_PACKETS,
        old="                    if size > max_size:\n",
        new="                    if False:\n",
        tests=(
            _TESTS_PACKETS + "test_absurd_length_is_refused_before_anything_is_kept",
            _TESTS_PACKETS + "test_body_may_be_as_long_as_max_packet_size_and_no_longer",
        ),
        breaks="One packet of a server that has gone mad fills the memory.",
    ),
    Mutation(
        name="packet-of-max-packet-size-refused",
        file=_PACKETS,
        old="                    if size > max_size:\n",
        new="                    if size >= max_size:\n",
        tests=(_TESTS_PACKETS + "test_body_may_be_as_long_as_max_packet_size_and_no_longer",),
        breaks="A packet of exactly the size that was allowed costs the connection.",
    ),
    Mutation(
        name="magic-is-not-looked-at",
        file=_PACKETS,
        old="        if not self._magic.startswith(found) and not self._other.startswith(found):\n",
        new="        if False:\n",
        tests=(_TESTS_PACKETS + "test_magic_that_is_not_the_servers_is_refused_at_once",),
        breaks="A peer that is no Gearman server is waited for, or is said to have sent an unknown command.",
    ),
    Mutation(
        name="known-commands-of-the-wrong-magic-are-taken",
        file=_PACKETS,
        old="    starts = {int.from_bytes(other,",
        new="    starts = {command: int(command) for command in legal} | {int.from_bytes(other,",
        tests=(_TESTS_PACKETS + "test_magic_that_is_not_the_servers_is_refused_at_once",),
        breaks="Zeros, as of a file with holes, are taken for packets.",
    ),
    Mutation(
        name="part-of-a-header-taken-for-a-packet",
        file=_PACKETS,
        old="            if length - start >= HEADER_SIZE:\n                kind, size",
        new="            if length - start >= HEADER_SIZE - 1:\n                kind, size",
        tests=(_TESTS_PACKETS + "test_part_of_a_header_is_no_packet", _CORPUS),
        breaks="A header that comes in two pieces costs the connection, now and then.",
    ),
    Mutation(
        name="part-of-a-body-taken-for-a-packet",
        file=_PACKETS,
        old="                    if end > length:\n",
        new="                    if end > length + 1:\n",
        tests=(
            _TESTS_PACKETS + "test_part_of_a_body_is_no_packet",
            _TESTS_PACKETS + "test_any_split_of_the_bytes_gives_the_same_packets",
            _CORPUS,
        ),
        breaks="A result that comes in two pieces lacks its last byte, now and then.",
    ),
    Mutation(
        name="whole-lines-may-be-of-any-length",
        file=_PACKETS,
        old="        if (len(buffer) if end < 0 else end) - start > self._max_line:",
        new="        if end < 0 and len(buffer) - start > self._max_line:",
        tests=(
            _TESTS_PACKETS + "test_length_of_a_line_counts_alike_whether_it_comes_whole_or_in_pieces",
            _CORPUS,
        ),
        breaks="Whether a long line costs the connection depends on how the network cuts it.",
    ),
    # ---- replies ---------------------------------------------------------------------------------------------------
    Mutation(
        name="nul-behind-the-handle-of-a-failure-kept",
        file=_SESSION,
        old='str(body.rstrip(b"\\0"), "utf-8", "surrogateescape"), None, command, events)',
        new='str(body, "utf-8", "surrogateescape"), None, command, events)',
        tests=(
            "tests/protocol/test_client.py::test_work_fail_ends_the_job_with_and_without_a_trailing_nul",
            _OUTCOMES + "test_client_without_the_exceptions_option_ends_a_job_whose_worker_raised",
        ),
        breaks="The client of a job whose worker raised waits for ever, unless it asked for exceptions.",
    ),
    Mutation(
        name="session-goes-on-behind-garbage",
        file=_REPLIES,
        old="        if self.failure is not None:\n            raise self.failure\n",
        new="",
        tests=(_TESTS_SESSION + "test_what_does_not_fit_ends_the_session_and_what_came_before_counts",),
        breaks="What comes behind an answer that is in doubt is believed: a job has the result of another.",
    ),
    Mutation(
        name="last-argument-of-a-reply-ends-at-a-nul",
        file=_REPLIES,
        old="events.append((REPLY, token, split_arguments(command, body)))",
        new='events.append((REPLY, token, body.split(b"\\0")))',
        tests=(_TESTS_SESSION + "test_replies_are_given_to_the_requests_in_their_order",),
        breaks="An answer that lacks arguments is taken for whole, and one with a NUL has too many.",
    ),
    Mutation(
        name="error-packet-in-place-of-a-line-is-refused",
        file=_REPLIES,
        old="        elif command == Command.ERROR:\n",
        new="        elif command == Command.ERROR and expected > 0:\n",
        tests=(_TESTS_SESSION + "test_replies_are_given_to_the_requests_in_their_order",),
        breaks="A server that refuses a text command, or a background job, with a packet loses its connection for it.",
    ),
    Mutation(
        name="line-that-begins-where-none-is-due-is-waited-for",
        file=_REPLIES,
        old="        if not self._decoder.in_line:\n            return\n",
        new="        return\n",
        tests=("tests/protocol/test_client.py::test_line_that_nobody_asked_for_is_refused_before_its_end",),
        breaks="A peer that talks garbage without line ends is believed until the health check.",
    ),
]
