"""Deploying: commands of pages, example and container are there and take the options that are given."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import onnx_fhe
from onnx_fhe.cli.app import parser

PAGES = ("docs/deploy.md", "docs/security.md", "docs/serving.md", "docs/two-sides.md", "README.md")


def commands(text: str) -> list[str]:
    """Every call of onnx-fhe in blocks of a page, or in a shell script, on one line each."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks) or text
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split("#")[0] for line in lines if re.match(r"\s*(exec )?onnx-fhe [a-z]", line)]


def require_options(line: str) -> None:
    """The command exists, and has the options that are given."""
    _, name, *words = [w for w in shlex.split(line) if w != "exec"]
    known = {flag for p in parser().commands[name].params for flag in p.opts}
    given = {w for w in words if re.fullmatch(r"--?[a-z][a-z-]*", w)}
    assert given <= known, f"{line}: {given - known}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_take_their_options(root, page):
    found = commands((root / page).read_text())
    assert found or page == "docs/security.md"
    for line in found:
        require_options(line)


def test_the_servers_script_is_one_and_its_commands_take_their_options(root):
    script = root / "examples" / "service" / "server.sh"
    subprocess.run(["sh", "-n", script], check=True)
    found = commands(script.read_text())
    assert [shlex.split(line.replace("exec ", ""))[1] for line in found] == ["compile", "serve"]
    for line in found:
        require_options(line)


def test_the_client_of_the_example_asks_for_images(root, tmp_path, monkeypatch, capsys):
    asked = {}

    class Remote:
        def __init__(self, url, client, *, keys, token):
            asked.update(url=url, client=client.name, keys=keys.name, token=token)

        def run(self, data):
            logits = np.eye(10)[[8] * len(data["input"])]
            return SimpleNamespace(outputs={"logits": logits}, seconds={"wait": 1.0})

    monkeypatch.setattr(onnx_fhe, "RemoteProgram", Remote, raising=False)
    (tmp_path / "tokens").write_text("example:abcdef\n")
    runpy.run_path(str(root / "examples" / "service" / "client.py"))["main"]("http://x", str(tmp_path))
    assert asked == {"url": "http://x", "client": "digits_mlp.client", "keys": "keys", "token": "abcdef"}
    assert "the service computed 8" in capsys.readouterr().out


def instructions(root) -> list[tuple[str, str]]:
    text = (root / "examples" / "service" / "Containerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and line[0] not in "# "]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_the_container_starts_the_command_with_options_that_there_are(root):
    found = dict(instructions(root))
    require_options(shlex.join(json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])))


def test_the_container_installs_as_the_page_says(root):
    installs = [text for kind, text in instructions(root) if kind == "RUN" and text.startswith("pip")]
    page = (root / "docs" / "deploy.md").read_text()
    assert "-r requirements/client-lean.txt -c constraints.txt" in page
    lean, wheel = installs
    assert "--no-deps" in lean
    assert "-r /install/server-lean.txt -c /install/constraints.txt" in lean
    assert "--no-deps" in wheel


def test_the_container_copies_what_is_there_or_what_the_page_makes(root):
    sources = [w for kind, text in instructions(root) if kind == "COPY" for w in text.split()[:-1]]
    for source in sources:
        made = source.startswith(("dist/", "build/service/"))
        assert made or (root / source).is_file(), source


def test_compose_mounts_where_the_container_looks(root):
    plain = yaml.safe_load((root / "examples" / "service" / "compose.yaml").read_text())
    server = plain["services"]["server"]
    options = json.loads(dict(instructions(root))["CMD"])
    mounted = {v.split(":")[1] for v in server["volumes"]}
    assert mounted == {options[options.index("--store") + 1], options[options.index("--tokens") + 1]}
    assert (root / server["build"]["dockerfile"]).is_file()
    assert server["ports"][0].endswith(":" + options[options.index("--port") + 1])


def test_the_container_serves_what_the_script_serves(root):
    """The same half, with a store and tokens; what the script makes is mounted and copied."""
    script = (root / "examples" / "service" / "server.sh").read_text().replace("\\\n", " ")
    made = next(line for line in commands(script) if "serve" in line).replace("$folder", "build/service")
    found = dict(instructions(root))
    there = shlex.split(made)[1:]
    here = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
    half = Path(here[2]).name
    assert there[2].endswith(half)
    assert here[:2] == there[:2]
    given = [{w for w in words if w.startswith("--")} for words in (here, there)]
    # Another host, as a container has an address of its own; its client half stays where it was made.
    assert given[0] ^ given[1] == {"--host", "--offer-client"}
    compose = yaml.safe_load((root / "examples" / "service" / "compose.yaml").read_text())
    (mounted,) = [v.split(":")[0] for v in compose["services"]["server"]["volumes"] if "/" in v.split(":")[0]]
    folder = root / "examples" / "service"
    assert (folder / mounted).resolve() == root / there[there.index("--tokens") + 1]
    assert (folder / compose["services"]["server"]["build"]["context"]).resolve() == root
    copied = [s for k, text in instructions(root) if k == "COPY" for s in text.split()[:-1]]
    assert f"build/service/{half}" in copied


def test_no_builder_of_the_container_is_sent_secrets(root):
    ignored = (root / ".dockerignore").read_text().splitlines()
    assert {f"build/service/{name}" for name in ("keys", "tokens", "store")} <= set(ignored)
    copied = [s for k, text in instructions(root) if k == "COPY" for s in text.split()[:-1]]
    assert not [s for s in copied for i in ignored if s.startswith(f"{i}/") or s == i]
