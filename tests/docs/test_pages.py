"""Every example of the pages runs, with tiny checkpoints and datasets under the names that it uses."""

import re
import subprocess
import sys

import pytest

from tests.docs.blocks import DOCS, ROOT, as_script, blocks_of, commands, has_examples, pages
from tests.docs.material import make_hub, make_material
from tests.hub.accounts import WRITE_TOKEN, Token
from tests.hub.client import environment
from tests.hub.server import Hub

EXAMPLES = [page for page in pages() if has_examples(page)]


def test_pages_have_examples():
    assert len(EXAMPLES) >= 7
    assert {page.name for page in pages()} >= {"index.md", "quickstart.md", "medical.md", "concepts.md"}


def test_examples_run(tmp_path):
    """One process for all, because imports take longer than most examples; the last line says where it stopped."""
    root, work = tmp_path / "hub", tmp_path / "work"
    make_hub(root)
    for page in EXAMPLES:
        make_material(work / page.stem)
    (work / "pages.py").write_text(as_script(EXAMPLES))
    with Hub(root) as server:
        server.accounts.tokens[WRITE_TOKEN] = Token("you", "write")  # as the pages' readers are called
        settings = environment(server, tmp_path / "home") | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "pages.py"],
            cwd=work,
            env=settings,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_of_make_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [words[1] for block in blocks_of(page) if block.language == "bash" for words in commands(block.code)
             if words[0] == "make"]  # fmt: skip
    named += re.findall(r"`make (\w+)`", page.read_text())
    assert set(named) <= targets


def test_nothing_is_left_to_write():
    for page in DOCS.rglob("*.md"):
        assert not re.search(r"TODO|TBD|FIXME|lorem|coming soon|^COSTS$", page.read_text(), re.M | re.I), page
