"""The tests on every Python that is installed, and on the oldest libraries that pyproject.toml allows.

``nox`` runs everything; ``nox -s oldest -- tests/unit -x`` runs one session, with arguments for pytest.
"""

import os
import tempfile
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["checks", "tests", "oldest", "wheel"]

PYTEST = ("python", "-m", "pytest", "-q", "-n", "3", "--dist", "worksteal")

UV_ERROR = 2
"""uv's exit code for errors such as an index that can't be reached. Versions that can't be resolved are 1."""

# The switches of tests/fast_ways.py, one for each run of the session `ways`.
SWITCHES = (
    "--without=driver",
    "--without=autocommit",
    "--without=copy",
    "--without=arrays",
    "--without=update-statements",
    "--without=page-totals",
    "--without=row-comparisons",
    "--without=joined-messages",
    "--without=columns",
    "--always=copy",
    "--always=arrays",
)

# CI runs these tests a second time, on the oldest libraries, within 75 seconds: the tests of the code that uses the
# drivers directly, of the compiler that confines statements, and of private names of other libraries.
DEPENDING_ON_LIBRARIES = (
    "tests/unit",
    "tests/tenancy/test_compiler.py",
    "tests/integration/test_copy.py",
    "tests/integration/test_direct.py",
    "tests/integration/test_direct_sql.py",
    "tests/integration/test_driver_types.py",
    "tests/integration/test_engines.py",
    "tests/integration/test_repositories.py",
    "tests/integration/test_single_writes.py",
    "tests/integration/test_stale_plans.py",
    "tests/integration/test_statement_listeners.py",
    "tests/integration/test_time_limits.py",
    "tests/fastapi/test_requests.py",
    "tests/fastapi/test_rerun.py",
    "tests/fastapi/test_wire.py::test_no_dependency_makes_a_success_of_a_failed_commit",
)


@nox.session(python=False)
def checks(session: nox.Session) -> None:
    """Run the linters and the type checkers, with the tools of `.venv`."""
    session.run("make", "check", external=True)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests on the newest libraries; a Python that is not installed is skipped."""
    session.install("--upgrade", "--editable", ".[dev]")
    session.run(*PYTEST, *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests on the oldest libraries that pyproject.toml allows."""
    install_oldest(session)
    session.run(*PYTEST, *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def wheel(session: nox.Session) -> None:
    """Build the sdist and the wheel, and use the wheel outside of the repository, as a user does.

    The wheel that is built from the sdist has the same files as the one that is built from the repository.
    """
    session.env["UV_SYSTEM_CERTS"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        direct, packed, project = (Path(folder, name) for name in ("direct", "packed", "project"))
        session.run_install("uv", "build", "--quiet", "--wheel", "--out-dir", f"{direct}", external=True)
        session.run_install("uv", "build", "--quiet", "--out-dir", f"{packed}", external=True)
        (one,), (other,) = direct.glob("*.whl"), packed.glob("*.whl")
        if files_of(one) != files_of(other):
            session.error("The wheel that is built from the sdist has other files than the repository's.")
        session.install(f"{other}[fastapi,sqlmodel,postgresql,sqlite,testing]", "httpx", "mypy")
        project.mkdir()
        script = Path("tests", "installed.py").resolve()
        # Neither the repository nor its tests are on the path.
        session.run("python", "-P", f"{script}", f"{project}", env={"PYTHONPATH": None})


def files_of(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@nox.session(python=False)
@nox.parametrize("switch", [nox.param(each, id=each.removeprefix("--")) for each in SWITCHES])
def ways(session: nox.Session, switch: str) -> None:
    """Run the tests with a fast way switched off, or forced, with the libraries of `.venv`."""
    session.run(f"{os.getcwd()}/.venv/bin/python", *PYTEST[1:], switch, *session.posargs, external=True)


@nox.session(python="3.11")
def mutation(session: nox.Session) -> None:
    """Change the code in one place at a time, and expect a failing test: all areas, or those that are named."""
    session.install("--editable", ".[dev]", "mutmut>=3.8,<3.9")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session(name="oldest-in-ci", python="3.11")
def oldest_in_ci(session: nox.Session) -> None:
    """Run `DEPENDING_ON_LIBRARIES` on the oldest libraries that pyproject.toml allows.

    Skipped, with a message, if the package index can't be reached.
    """
    try:
        install_oldest(session)
    except CommandFailed as failure:
        if failure.return_code != UV_ERROR:
            raise
        session.skip("uv can't reach the package index, so nothing was tested on the oldest libraries.")
    session.run(*PYTEST, *DEPENDING_ON_LIBRARIES, *session.posargs)


def install_oldest(session: nox.Session) -> None:
    """Install the oldest allowed libraries of the toolkit; those of the example and the test tools are the newest."""
    # As pip does, trust the certificates of the system, which can be those of a proxy.
    session.env["UV_SYSTEM_CERTS"] = "true"
    versions = f"{session.create_tmp()}/oldest.txt"
    extras = [
        f"--extra={extra}" for extra in ("fastapi", "sqlmodel", "postgresql", "sqlite", "migrations", "cli", "doctor")
    ]
    resolve = ("uv", "pip", "compile", "--quiet", "--upgrade", "--resolution=lowest-direct", *extras, "pyproject.toml")
    session.run_install(*resolve, f"--python={session.python}", f"--output-file={versions}")
    # typing-extensions 4.12 allows no newer anyio than 4.14, and pytest 9.2 warns of a name that this anyio imports.
    session.install("--editable", ".[dev]", "pytest<9.2", "--constraint", versions)
