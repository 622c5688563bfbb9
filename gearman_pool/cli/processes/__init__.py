"""What ``gearman-pool work`` runs: a supervisor, and worker processes that report to it.

The supervisor's process has ``supervisor``, ``worker_process`` (one of the processes as it is seen from there) and
``health``; each worker process has ``child``, ``loading`` and ``command_task``. ``reports`` is what the two say to each
other. ``signals`` serves whatever runs until it is told to stop. Nothing here adds arguments to a command line.
"""
