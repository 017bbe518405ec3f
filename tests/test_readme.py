"""Every command, file and link that README and docs name exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "kernels" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_and_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    beside = page.parent / "Makefile"
    makefile = (beside if beside.exists() else ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\s*make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    commands = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for command in set(re.findall(r"^\s+(dance-[a-z]+) ", text, re.MULTILINE)):
        assert f"{command} =" in commands, command


COMMANDS = {**{f"dance-{name}": f"dance_deploy.cli.{name}" for name in ("train", "export", "run", "bench", "power",
                                                                        "doctor")},
            "python -m dance_deploy.cli.kept_maps": "dance_deploy.cli.kept_maps",
            "-m dance_deploy.cli.train": "dance_deploy.cli.train",
            "python -m tools.experiments": "tools.experiments.__main__",
            "python -m tools.experiments.times": "tools.experiments.times"}


def shown_commands(text):
    """(command, its options) of the lines that show one, lines that go on with a backslash joined, quotes left out."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        line = re.sub(r"'[^']*'", "", line)
        for part in re.split(r"&&|;", line) if line.startswith("    ") else ():
            begins = [name for name in COMMANDS if re.search(rf"(?<![\w.-]){re.escape(name)}(?= |$)", part)]
            if begins:
                name = max(begins, key=len)
                behind = part[part.index(name) + len(name):].split("#")[0]
                yield name, re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", behind)


def test_shown_commands_are_seen():
    text = ("    dance-train --data DIR \\\n        -o c.pt  # --not this\n"
            "    dance-power compare --a 'dance-run b --dense'\ntext --x")
    assert list(shown_commands(text)) == [("dance-train", ["--data", "-o"]), ("dance-power", ["--a"])]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_options_of_shown_commands_exist(page, monkeypatch):
    typer = pytest.importorskip("typer")
    monkeypatch.syspath_prepend(str(ROOT))
    for name, options in shown_commands(page.read_text(encoding="utf-8")):
        if name.startswith("python -m tools"):
            pytest.importorskip("torch")
        group = typer.main.get_command(importlib.import_module(COMMANDS[name]).app)
        there = {option for command in (group, *getattr(group, "commands", {}).values())
                 for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(options) <= there, f"{name} has no {sorted(set(options) - there)}"
