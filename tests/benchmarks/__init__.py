"""The project's speed, measured beside its peers: ``python -m tests.benchmarks`` prints the ratio table.

Each figure is a ratio of two programs that ran in turns on the same machine, because absolute times drift. A case is a
work (what is done) by a driver (who does it), and each timed run is a process of its own:

- `rows`: which case each row of the table compares with which, and its target
- `measuring`: runs the cases of some rows in turns and takes medians
- `servers`, ``instant_server.c``, `instant_server`: the servers under them
- `run_one`: one run of one case; `works` has the clocks and threads that all drivers share, `drivers` the drivers
- `table`: what is printed

Nothing here is a test but ``test_benchmarks_run.py``, and that asserts no time.
"""
