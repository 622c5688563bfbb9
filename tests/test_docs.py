"""What the documents show is run as a reader would run it."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gearman_pool import (
    GearmanAdminClient,
    GearmanClient,
    GearmanJob,
    GearmanJobRequest,
    GearmanWorker,
    GearmanWorkerJob,
    JobFuture,
    JobReference,
    JobStatus,
    JSONEncoder,
)

from .public_interface.walk import methods

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gearman_pool"
EXAMPLES = ROOT / "docs" / "examples"


def run(*arguments, program=None, logged=None, timeout=50.0):
    """Run this Python and return what it printed; it must end well and say nothing else but log lines of this kind."""
    if program is not None:
        arguments = ("-W", "error", "-c", program)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if logged is None or not re.search(logged, line)]
    assert (done.returncode, complaints) == (0, []), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def marked(marker):
    """The block of README.md behind a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has no block behind <!-- {marker} -->"
    return found.group(1)


def python_blocks(path):
    """(line, program) for each block of Python in a document."""
    text = path.read_text()
    if path.suffix == ".md":
        pattern = r"```python\n(.*?)```"
    else:
        pattern = r"\.\. code-block:: python\n(?:   :\w+:.*\n)*\n((?:(?:   .*)?\n)+)"
    for found in re.finditer(pattern, text, re.DOTALL if path.suffix == ".md" else 0):
        yield text.count("\n", 0, found.start()) + 2, textwrap.dedent(found.group(1))


def test_usage_of_the_readme_works_as_it_stands(gearmand, echo_worker):
    program = marked("usage").replace("127.0.0.1:4730", gearmand.address)
    assert gearmand.address in program
    result, status = run(program=program).splitlines()
    assert result == "b'!dlroW olleH'"
    assert status.startswith("JobStatus(known=True, running=False")
    assert gearmand.jobs("mail") == 1


def test_usage_of_the_readme_says_what_went_wrong_without_a_worker(gearmand):
    # The same lines, with a shorter patience than 30 s for the result that never comes.
    program = marked("usage").replace("127.0.0.1:4730", gearmand.address).replace("timeout=30", "timeout=0.5")
    first = run(program=program).splitlines()[0]
    assert first.startswith("JobTimeout task 'reverse'")
    assert first.endswith("may have run")


def test_the_readme_begins_with_two_commands_of_one_line_each():
    # .ci/run runs the second in full on every Python, and tests/cli the first.
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks[:2] == [marked("demo-command"), marked("test-command")]
    assert blocks[:2] == ["python3 -m gearman_pool demo\n", "python3 -m tests\n"]


@pytest.mark.usefixtures("needs_gearmand", "needs_gearman_tool")
def test_quickstart_counts_words_while_a_server_is_killed():
    output = run(EXAMPLES / "quickstart.py", logged="lost the connection|Connection refused")
    assert re.search(r"[\d,]+ words in \d+ files", output)
    assert re.search(r"jobs: \d+ complete, \d+ sent again, 0 lost", output)


def test_first_page_of_the_docs_works_as_it_stands(gearmand, c_worker):
    (_, block), *_ = python_blocks(ROOT / "docs" / "index.rst")
    block = block.replace('"10.0.0.1:4730", "10.0.0.2"', f'"{gearmand.address}"').replace('"resize"', '"reverse"')
    assert gearmand.address in block
    use = "import types\nHttpResponse = bytes\nprint(view(types.SimpleNamespace(body=b'abc')))"
    assert run(program=f"{block}\n{use}") == "b'cba'\n"


def test_python_gearmans_page_works_as_it_stands(gearmand, c_worker):
    (_, block), *_ = python_blocks(ROOT / "docs" / "python_gearman.rst")
    block = block.replace("localhost:4730", gearmand.address)
    assert run(program=f"{block}\nprint(request.state, request.result)") == "COMPLETE b'!dlroW olleH'\n"


def start(program):
    """Start a program as a file of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_worker_of_the_workers_page_works_until_it_is_told_to_stop(gearmand, tmp_path):
    (_, block), *_ = python_blocks(ROOT / "docs" / "worker.rst")
    program = tmp_path / "worker.py"
    program.write_text(block.replace('"10.0.0.1:4730", "10.0.0.2"', f'"{gearmand.address}"'))
    assert gearmand.address in program.read_text()
    with start(program) as process, GearmanClient([gearmand.address]) as client:
        try:
            assert client.submit("reverse", b"abc").result(30) == b"cba"
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=30) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0


def test_hooks_of_the_workers_page_run(gearmand, tmp_path):
    _, (_, block), *_ = python_blocks(ROOT / "docs" / "worker.rst")
    use = f"""
import types
database = types.SimpleNamespace(rollback=lambda: print("rolled back"))
worker = Worker(["{gearmand.address}"], max_jobs=2)
worker.register_task("double", lambda job: job.data * 2)
worker.work()
"""
    program = tmp_path / "worker.py"
    program.write_text(block + use)
    with start(program) as process, GearmanClient([gearmand.address], data_encoder=JSONEncoder) as client:
        try:
            assert [client.submit("double", number).result(30) for number in (1, 2)] == [2, 4]
            output, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, set(output.splitlines()), errors) == (0, {"rolled back"}, "")


def test_encoder_of_the_encoders_page_works_in_both_directions(gearmand):
    (_, block), *_ = python_blocks(ROOT / "docs" / "encoders.rst")
    use = """
import threading
worker.register_task("double", lambda job: job.data * 2)
thread = threading.Thread(target=worker.work)
thread.start()
with client, worker:
    print(client.submit("double", b"ab" * 1000).result(20) == b"ab" * 2000)
thread.join()
"""
    assert block.count('"localhost"') == 2
    assert run(program=block.replace('"localhost"', f'"{gearmand.address}"') + use) == "True\n"


def test_docs_name_the_danger_of_pickle():
    (_, warning) = (ROOT / "docs" / "encoders.rst").read_text().split(".. warning::")
    assert "Unpickling runs whatever code" in warning
    assert "encoders" in (ROOT / "docs" / "index.rst").read_text().split()


@pytest.mark.slow
def test_testing_page_works_as_it_stands(tmp_path):
    blocks = [block for _, block in python_blocks(ROOT / "docs" / "testing.rst")]
    eager, view, plugin, application_test, embedded = blocks
    run(program=eager)
    run(program=embedded)
    # A stand-in for the application of the page, whose view submits through its module's client.
    application = """
import sys, types
from gearman_pool import GearmanWorker
views, tasks, app = types.ModuleType("myapp.views"), types.ModuleType("myapp.tasks"), types.ModuleType("myapp")
tasks.worker = GearmanWorker(["127.0.0.1:1"])
tasks.worker.register_task("reverse", lambda job: job.data[::-1])
class Client:
    def post(self, path, data):
        return types.SimpleNamespace(data=views.client.submit(path.rpartition("/")[2], data).result())
app.views, app.tasks, app.app = views, tasks, types.SimpleNamespace(test_client=Client)
sys.modules.update({"myapp": app, "myapp.views": views, "myapp.tasks": tasks})
views.client = None
"""
    run(program=f"{application}\n{view}\nimport pytest\ntest_view(pytest.MonkeyPatch())")
    (tmp_path / "myapp.py").write_text("""
from gearman_pool import GearmanWorker

client = None
worker = GearmanWorker(["127.0.0.1:1"])

@worker.task("mail")
def mail(job):
    assert job.data == {"to": "someone@example.org"}

def sign_up(address):
    client.submit_background("mail", {"to": address})
""")
    tests = tmp_path / "test_page.py"
    tests.write_text(f"{plugin}\n{application_test}")
    # By name, for where the package is only on the path; its entry point would register the same module twice.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    arguments = ["-p", "gearman_pool.testing.pytest_plugin", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments, str(tests)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **plugins},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


#: Which blocks are programs by themselves, by document and place; each has a test above.
PROGRAMS = {
    ("README.md", 1),
    ("index.rst", 1),
    ("python_gearman.rst", 1),
    ("encoders.rst", 1),
    ("worker.rst", 1),
    ("worker.rst", 2),
    ("testing.rst", 1),
    ("testing.rst", 2),
    ("testing.rst", 4),
    ("testing.rst", 5),
}


def test_every_program_in_the_docs_is_run():
    found = set()
    for path in DOCUMENTS:
        for number, (_, block) in enumerate(python_blocks(path), 1):
            if re.match(r"(import|from) ", block):
                found.add((path.name, number))
    assert found == PROGRAMS, "a block that starts with an import is a program: have a test run it, and name it here"


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.rst"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_of_python_are_python(path):
    for line, block in python_blocks(path):
        compile(block, f"{path.name}, line {line}", "exec")


def docstrings():
    """(where, docstring) for everything in the package that has one."""
    for path in sorted(PACKAGE.glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(PACKAGE)}:{getattr(node, 'name', 'module')}", text


def examples():
    """(where, program) for each ``Example::`` in a docstring."""
    for where, text in docstrings():
        for found in re.finditer(r"^( *)Examples?::\n\n((?:\1    .*\n|\n)+)", text + "\n", re.MULTILINE):
            yield where, textwrap.dedent(found.group(2))


EXAMPLE_BLOCKS = list(examples())


def test_examples_in_docstrings_are_found():
    assert len(EXAMPLE_BLOCKS) > 20
    mentioned = sum(len(re.findall(r"^ *Examples?::$", text, re.MULTILINE)) for _, text in docstrings())
    assert len(EXAMPLE_BLOCKS) == mentioned


@pytest.mark.parametrize(("where", "program"), EXAMPLE_BLOCKS, ids=[where for where, _ in EXAMPLE_BLOCKS])
def test_example_in_a_docstring_is_python(where, program):
    # Some are the inside of a function, so that they may return and await.
    compile("async def example():\n" + textwrap.indent(program, "    "), where, "exec")


#: Whose methods users call, or override.
DOCUMENTED = [
    GearmanClient,
    GearmanAdminClient,
    GearmanWorker,
    GearmanWorkerJob,
    JobFuture,
    GearmanJobRequest,
    GearmanJob,
    JobReference,
    JobStatus,
]


def public_methods():
    """(name, function) of each class that users know and of each of its methods that is this package's."""
    for kind in DOCUMENTED:
        yield kind.__name__, kind
        for name, function in methods(kind):
            yield f"{kind.__name__}.{name}", function


def test_public_methods_have_examples():
    # That the examples are Python is seen to above.
    found = dict(public_methods())
    assert {"GearmanClient.submit_job", "GearmanWorker.check_job_lock", "JobReference.parse"} < set(found)
    assert [name for name, thing in found.items() if "\nExample::\n" not in inspect.getdoc(thing)] == []


#: What makes a lock, or something with a lock inside that one thread waits for and another one lets go on.
LOCKS = {"Lock", "RLock", "_Guard", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"}

#: The names of locks that no object keeps as its own: those of a waiting caller, which others only release, and the
#: event for which the main thread of ``gearman-pool serve`` waits, set by its signal handlers.
OWN_LOCKS = {"waiter", "wish", "parked", "ended"}


def locks_of(path):
    """(class or None, name, line) of each lock that a module makes and keeps under a name."""

    def visit(node, owner):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, child.name)
                continue
            if isinstance(child, (ast.Assign, ast.AnnAssign)) and isinstance(child.value, ast.Call):
                made = ast.unparse(child.value.func).rpartition(".")[2]
                if made in LOCKS:
                    for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                        if isinstance(target, ast.Attribute):
                            mine = ast.unparse(target.value) == "self"
                            yield owner if mine else None, target.attr, child.lineno
                        else:
                            yield "", ast.unparse(target), child.lineno
            yield from visit(child, owner)

    yield from visit(ast.parse(path.read_text()), None)


def found_locks():
    """(path, class or None, name, line) of each lock of the package."""
    return [(path, *lock) for path in sorted(PACKAGE.glob("**/*.py")) for lock in locks_of(path)]


def test_page_on_threads_names_every_lock():
    page = (ROOT / "docs" / "threads.rst").read_text()
    section = re.search(r"\nLocks\n-----\n(.*?)\n[^\n]+\n---", page, re.DOTALL).group(1)
    named = set(re.findall(r"``(\w+\.\w+)``", section))
    locks = {f"{owner}.{name}" for _, owner, name, _ in found_locks() if owner}
    assert len(locks) > 10
    assert named == locks
    # Others' attributes are replaced, after a fork and for each run; variables are a caller's own.
    assert {name for _, owner, name, _ in found_locks() if owner is None} <= {lock.partition(".")[2] for lock in locks}
    assert {name for _, owner, name, _ in found_locks() if owner == ""} == OWN_LOCKS


def test_comments_say_what_a_lock_guards():
    locks, told = set(), set()
    for path, owner, name, line in found_locks():
        text = path.read_text()
        lines = [line.strip() for line in text.splitlines()]
        comments = [line for line in lines if line.startswith("#")]
        comments += [
            ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)
        ]
        if owner:
            locks.add((path.name, owner, name))
        if lines[line - 2].startswith("#") or any(f"``{name}``" in comment for comment in comments):
            told.add((path.name, owner, name))
    assert locks - told == set()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='sphinx is missing (pip install -e ".[docs]")')
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "trees"]
    run("-m", "sphinx", *options, ROOT / "docs", tmp_path / "site", timeout=170)
    assert (tmp_path / "site" / "index.html").exists()
