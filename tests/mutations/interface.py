"""Mutations of the public interface: what users rely on changes, and nobody says so."""

from __future__ import annotations

from .mutation import Mutation

_FILE = "tests/public_interface/test_public_interface.py"
_ACCEPTED = f"{_FILE}::test_public_interface_is_the_one_that_was_accepted"

MUTATIONS = [
    Mutation(
        name="default-of-an-option-changes",
        file="gearman_pool/settings/client_options.py",
        old="    lost_job_check: float = 30.0\n",
        new="    lost_job_check: float = 60.0\n",
        tests=(_ACCEPTED,),
        breaks="A job that the server has lost is noticed twice as late as before, with the same program.",
    ),
    Mutation(
        name="parameter-is-renamed",
        file="gearman_pool/settings/addresses.py",
        old='''    def with_ssl(self, context: ssl.SSLContext) -> ServerAddress:
        """Return the same address with TLS through this context, unless it has one of its own."""
        if self.ssl_context is not None and not self.ssl_is_default:
            return self
        return dataclasses.replace(self, ssl_context=context, ssl_is_default=False)
''',
        new='''    def with_ssl(self, ssl_context: ssl.SSLContext) -> ServerAddress:
        """Return the same address with TLS through this context, unless it has one of its own."""
        if self.ssl_context is not None and not self.ssl_is_default:
            return self
        return dataclasses.replace(self, ssl_context=ssl_context, ssl_is_default=False)
''',
        tests=(_ACCEPTED,),
        breaks="A program that gives the argument by its name ends with TypeError.",
    ),
    Mutation(
        name="argument-becomes-keyword-only",
        file="gearman_pool/client.py",
        old="    def close(self, timeout: float = 5.0) -> None:\n",
        new="    def close(self, *, timeout: float = 5.0) -> None:\n",
        tests=(_ACCEPTED,),
        breaks="close(10) ends with TypeError.",
    ),
    Mutation(
        name="name-becomes-public",
        file="gearman_pool/util.py",
        old='__all__ = ["Stopwatch", "disambiguate_server_parameter", "unlist"]',
        new='__all__ = ["Stopwatch", "disambiguate_server_parameter", "parse_server", "unlist"]',
        tests=(_ACCEPTED,),
        breaks="Programs come to rely on a name that nobody has decided to keep.",
    ),
    Mutation(
        name="property-goes",
        file="gearman_pool/jobs/views.py",
        old="    def fraction(self) -> float | None:\n",
        new="    def part(self) -> float | None:\n",
        tests=(_ACCEPTED,),
        breaks="JobStatus.fraction is an AttributeError.",
    ),
    Mutation(
        name="errors-base-changes",
        file="gearman_pool/errors.py",
        old="class JobLost(GearmanError):\n",
        new="class JobLost(JobFailed):\n",
        tests=(_ACCEPTED,),
        breaks="Handlers of JobFailed get jobs that no worker has failed.",
    ),
    Mutation(
        name="error-is-no-longer-retryable",
        file="gearman_pool/errors.py",
        old='''    """The server no longer knows the job and never said how it ended. It may have run."""

    retryable = True
''',
        new='''    """The server no longer knows the job and never said how it ended. It may have run."""
''',
        tests=(_ACCEPTED,),
        breaks="Programs that go by retryable give a lost job up, where they sent it again.",
    ),
    Mutation(
        name="default-of-a-commands-option-changes",
        file="gearman_pool/cli/commands/submit.py",
        old="        default=100,\n",
        new="        default=1000,\n",
        tests=(_ACCEPTED,),
        breaks="submit --lines has ten times as many jobs in flight as before.",
    ),
    Mutation(
        name="command-is-told-its-unique-by-another-name",
        file="gearman_pool/cli/processes/command_task.py",
        old='"GEARMAN_JOB_UNIQUE"',
        new='"GEARMAN_UNIQUE"',
        tests=(_ACCEPTED,),
        breaks="Scripts that work --exec starts find no unique in their environment.",
    ),
    Mutation(
        name="log-goes-to-another-name",
        file="gearman_pool/threads/callbacks.py",
        old='logging.getLogger("gearman_pool.callbacks")',
        new='logging.getLogger("gearman_pool.mailboxes")',
        tests=(_ACCEPTED,),
        breaks="Logging that is configured by name misses the errors of callbacks.",
    ),
    Mutation(
        name="metric-is-renamed",
        file="gearman_pool/cli/processes/health.py",
        old='    ("jobs_held", "gauge",',
        new='    ("jobs", "gauge",',
        tests=(_ACCEPTED,),
        breaks="Dashboards and alarms that watch the metric show nothing.",
    ),
    Mutation(
        name="key-of-json-is-renamed",
        file="gearman_pool/cli/commands/cancel.py",
        old='"cancelled": True',
        new='"canceled": True',
        tests=("tests/cli/commands/test_json_keys.py::test_keys_of_what_is_looked_at",),
        breaks="Scripts that read what cancel --json prints find nothing under the key.",
    ),
    Mutation(
        name="fixture-lives-for-one-test",
        file="gearman_pool/testing/pytest_plugin.py",
        old='@pytest.fixture(scope="session")\n',
        new="@pytest.fixture\n",
        tests=(_ACCEPTED,),
        breaks="Users' own session fixtures can no longer use gearman_session_server.",
    ),
    Mutation(
        name="option-is-refused-in-a-dsn",
        file="gearman_pool/settings/sources.py",
        old='    if name in ("ssl_context", "data_encoder", "listeners"):\n',
        new='    if name in ("ssl_context", "data_encoder", "listeners", "name"):\n',
        tests=(_ACCEPTED,),
        breaks="A DSN that names the client, and worked before, raises ValueError.",
    ),
    Mutation(
        name="module-is-no-attribute-of-the-package",
        file="gearman_pool/__init__.py",
        old='    "util": "",\n',
        new="",
        tests=(f"{_FILE}::test_modules_are_attributes_of_the_package",),
        breaks="import gearman_pool as gearman; gearman.util.unlist(...) raises AttributeError.",
    ),
    Mutation(
        name="version-rises-without-a-word",
        file="gearman_pool/__init__.py",
        old='__version__ = "0.1.0"\n',
        new='__version__ = "0.2.0"\n',
        tests=(_ACCEPTED, f"{_FILE}::test_version_is_the_same_everywhere_and_the_changelog_has_its_section"),
        breaks="A version is released that CHANGELOG.md does not know.",
    ),
    Mutation(
        name="fields-of-a-reference-change-places",
        file="gearman_pool/jobs/views.py",
        old="    server: str\n    handle: str\n    unique: str\n\n    def __str__",
        new="    handle: str\n    server: str\n    unique: str\n\n    def __str__",
        tests=(_ACCEPTED, "tests/public_interface/test_stored.py::test_pickle_of_an_earlier_version_is_read"),
        breaks="References that sessions hold as pickles come back with server and handle exchanged.",
    ),
]
