"""A strict room: eight CPU devices, no silent rank promotion; pyproject.toml makes warnings errors.

The settings are environment variables so that they reach the processes which tests start, too.
"""

import atexit
import gc
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

JAXLIB = tuple(int(part) for part in version("jaxlib").split(".")[:2])
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_cpu_parallel_codegen_split_count=1"]
if JAXLIB < (0, 11):
    # Tests compile much and compute little: a fifth of the time of optimised compilation. XLA ends
    # the process, without a word, where it meets a flag that it does not know.
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")

os.environ["JAX_PLATFORMS"] = os.environ.get("GPT1_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tolerances are those of float32; a GPU would otherwise multiply in TF32.
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Whole runs compile the same programs again and again, in this process and in others: the workers
# of pytest-xdist and the verbs share one folder. With a largest size, JAX locks it, so that nobody
# reads an entry of which half is written. A folder given from outside is kept between runs.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="gpt1-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2**31)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Imported when all of the above is set: JAX reads it once.
import pages  # noqa: E402
import pytest  # noqa: E402
import reproductions  # noqa: E402
import runs  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from gpt1_jax.__main__ import main  # noqa: E402
from gpt1_jax.results.report import report  # noqa: E402

# Few examples, always the same ones; --hypothesis-profile=long looks further.
SLOW = [HealthCheck.too_slow]
settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=1000, deadline=None, suppress_health_check=SLOW)
settings.load_profile("fast")

# What a test file imports in order to compile or to train; the others are quick, but for one that
# prepares corpora again and again, each in several processes.
COMPILES = {"jax", "jnp", "runs", "tiny"}
NOT_QUICK = {"test_corpus"}
# Begun first, so that no process waits at the end for one of them, nor in between for the fixture
# `reader`, which takes the longest.
LONG = {"test_notebooks", "test_processes", "test_reproduce"}
# What takes a minute or more: all that README and docs/ say is typed, the quickstart included, and
# the whole of table 5 is made.
SLOW_FIXTURES = {"reader", "table"}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """The whole suite is divided among three processes, of which two compute while one waits for a
    disk or for others; files that are named run in this one."""
    asked = getattr(config.option, "numprocesses", 0)  # absent without pytest-xdist
    divided = hasattr(config, "workerinput")  # this is one of the three
    named = config.args_source is config.ArgsSource.ARGS
    debugged = config.option.usepdb or config.option.collectonly
    if asked is None and not (divided or named or debugged):
        config.option.numprocesses = 3
        config.option.dist = "worksteal"


def pytest_collection_finish():
    """What is imported by now stays: collecting garbage need not look at it again and again, nor as
    often as JAX makes small objects where it traces."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_configure(config):
    if config.option.markexpr == "exhaustive":
        settings.load_profile("long")
    further = {"quick": "not slow and not exhaustive", "slow": "not exhaustive"}
    if config.option.markexpr in further:
        config.option.markexpr += f" and {further[config.option.markexpr]}"


def pytest_collection_modifyitems(config, items):
    for item in items:
        # Properties are looked into further by the same tests.
        if config.option.markexpr == "exhaustive" and "hypothesis" in item.keywords:
            item.add_marker("exhaustive")
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker("slow")
        if not (COMPILES & vars(item.module).keys() or item.module.__name__ in NOT_QUICK):
            item.add_marker("quick")
    items.sort(key=lambda item: item.module.__name__ not in LONG)


REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real novels and tasks, where they lie beside the project; the test is skipped elsewhere."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside the project")
    return REAL_DATA


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): the folder of this name, after make(folder), which only the first of the
    workers of pytest-xdist calls. To be read: another worker may read it, too."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place

    def made(name: str, make) -> Path:
        folder, done = place / name, place / f"{name}.made"
        with FileLock(place / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def installed(once) -> Path:
    """What PYTHONPATH has to name for the package as its wheel installs it."""
    return once("wheel", pages.install) / "site"


@pytest.fixture(scope="session")
def reader(once, installed) -> tuple[Path, dict]:
    """(folder, outcomes): what README and docs/ say was typed there. To be read, or copied."""
    folder = once("reader", lambda folder: pages.type_all(installed, folder))
    return folder, pages.outcomes(folder)


@pytest.fixture(scope="session")
def tokens(once) -> Path:
    """A prepared folder: 300 ids, some 5,000 tokens to train on and 1,000 held out."""

    def make(folder):
        runs.prepare(folder / "tokens", runs.write_documents(folder / "documents"))

    return once("tokens", make) / "tokens"


@pytest.fixture(scope="session")
def pretrained(tokens, once) -> Path:
    """The workdir of runs.PRETRAINING, finished. To be read, or copied."""
    made = once("pretrained", lambda folder: runs.run(runs.pretraining(tokens), folder / "run"))
    return made / "run"


@pytest.fixture(scope="session")
def classification(once) -> Path:
    """The folder of a task with the classes rain and sun."""
    made = once("task", lambda folder: runs.write_task(folder / "weather", "classification"))
    return made / "weather"


@pytest.fixture(scope="session")
def finetuned(pretrained, classification, once) -> Path:
    """The workdir of runs.FINE_TUNING on `classification`, finished. To be read, or copied."""
    config = runs.fine_tuning(pretrained, classification, "classification")
    return once("finetuned", lambda folder: runs.run(config, folder / "run")) / "run"


# The command line, in this process


@pytest.fixture
def refused(capsys):
    """Runs the command line, which must refuse with one line that names what is given."""

    def run(words, *named) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("gpt1: ")
        for name in named:
            assert str(name) in line
        return line

    return run


@pytest.fixture
def said(capsys):
    """Runs the command line, which must succeed; returns its result and what it said."""

    def run(words) -> tuple[dict, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        output, errors = capsys.readouterr()
        assert status == 0, errors
        return json.loads(output.splitlines()[-1]), errors

    return run


@pytest.fixture
def rows(tmp_path) -> Path:
    lines = [{"text": text} for text in ("sun on the mat", "rain fell", "the sun")]
    return runs.write_jsonl(tmp_path / "rows.jsonl", lines)


@pytest.fixture
def texts(tmp_path) -> str:
    """The glob of text files."""
    return runs.write_documents(tmp_path / "texts", count=3, n_words=300)


# A report of made-up runs


@pytest.fixture(scope="session", name="runs")
def made_up_runs(tmp_path_factory):
    return reproductions.write(tmp_path_factory.mktemp("reproduction") / "runs")


@pytest.fixture(scope="session")
def reported(runs, tmp_path_factory):
    """The folder of a report, and what it returned."""
    output = tmp_path_factory.mktemp("report") / "out"
    return output, report(runs, output)
