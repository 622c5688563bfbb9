"""What a person sees and types: what is printed, how far a job has come, single keys.

Nothing here knows a subcommand or a server.
"""
