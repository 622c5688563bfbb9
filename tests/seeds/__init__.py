"""The programs of python-gearman's documentation, run as they stand there.

``programs`` has them, ported to Python 3 in nothing but ``print``, ``xrange``, the name of ``pickle``, missing colons,
and names that the documents themselves get wrong (``completed_results``, ``retried_requests``). What a program lacks to
show anything is added by the test that runs it.
"""
