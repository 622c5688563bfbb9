"""The soak: mixed load for as long as one likes, while servers are killed, stopped and restarted at random.

``python -m tests.faults.soak --minutes 30`` runs it; see ``--help``.
"""
