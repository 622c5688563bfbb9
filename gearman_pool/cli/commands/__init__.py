"""The subcommands of ``gearman-pool``, one a module; `demo_work` and `submit_lines` are parts of two of them.

The module of a subcommand has ``HELP``, the optional ``EPILOG``, ``add_arguments(parser)`` and ``run(args) -> int``.
They are for the main thread. An error that ends a subcommand is raised: the program prints the line and finds the exit
code. No subcommand imports the program, and none starts anything when it is imported.
"""
