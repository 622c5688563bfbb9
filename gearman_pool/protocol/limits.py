"""What gearmand takes, each limit once. Seen on gearmand 1.1.20; the embedded server has the same."""

from __future__ import annotations

__all__ = [
    "MAX_CLIENT_ID_BYTES",
    "MAX_COMMAND_LENGTH",
    "MAX_HANDLE_BYTES",
    "MAX_TASK_BYTES",
    "MAX_UNIQUE_BYTES",
    "MAX_WORDS",
    "MAX_SERVER_TASK_BYTES",
]

#: gearmand keeps 63 bytes of a unique: it cuts one of 64 and refuses longer ones.
MAX_UNIQUE_BYTES = 63

#: gearmand never answers a GET_STATUS for a longer handle, and a reply that never comes spoils the connection.
MAX_HANDLE_BYTES = 63

#: gearmand cuts a longer client id.
MAX_CLIENT_ID_BYTES = 127

#: gearmand takes a header and all arguments but the payload only if they fit into 8192 bytes together. A server must
#: leave a little for the unique and the rest; a client leaves room for a reducer too, and for names in logs.
MAX_SERVER_TASK_BYTES = 8000
MAX_TASK_BYTES = 512

#: gearmand reads a text command into a buffer of 8192 bytes. If a line, its newline apart, is longer than this, the
#: connection is closed without an answer.
MAX_COMMAND_LENGTH = 8191

#: gearmand closes the connection, without an answer, on a line of more words than this.
MAX_WORDS = 5
