"""Feeds the protocol's state machines what no peer should send: ``python -m tests.faults.fuzz --inputs 1000000``.

An input is a stream of packets and lines that was then damaged, or bytes at random. It goes to two machines of a kind,
to one whole and to the other in pieces. Both must say the same: the same events, and then nothing or a `ProtocolError`
of the same type. Each request must be answered at most once, and no more may be held than has come. Anything else that
is raised, and memory that grows, is a bug, and the exit status is not 0.

``machines`` has the machines, ``generator`` makes inputs from a seed, ``guided`` lets atheris look for inputs that
reach code which none has reached before (``--guided``; needs the extra ``fuzz``), and ``corpus`` holds the inputs that
reach the most, which the tests run through all machines.
"""
