"""The shape of the project: who may import whom, and where the packages come from."""

import ast
from pathlib import Path

import agents

ROOT = Path(__file__).parent.parent
# Each room may use those to its left and itself.
ROOMS = ("rules", "config", "streams", "agents", "ops")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_imports_point_one_way():
    """``rules <- config <- streams <- agents <- ops``: the judge knows nothing of Kafka, and the state knows no command line."""
    wrong = []
    for path in MODULES:
        room = ROOMS.index(path.relative_to(ROOT).parts[0])
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [
                f"{path.relative_to(ROOT)}:{node.lineno} imports {name}" for name in names if name.split(".")[0] in ROOMS[room + 1 :]
            ]
    assert wrong == []


def test_the_core_does_no_input_or_output():
    """``rules/`` is handed time, facts and rulebook: a year of law runs without a clock, a socket or a loop."""
    wrong = []
    outside = {"asyncio", "socket", "os", "aiokafka", "faust", "redis", "subprocess", "threading"}
    for path in (ROOT / "rules").rglob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        clocks = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in {"now", "utcnow", "today", "monotonic"}]
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in [*sorted(imported & outside), *clocks]]
    assert wrong == []


def test_agents_is_ours():
    """The top-level names are common words; another distribution's ``agents`` must not stand in for ours."""
    assert Path(agents.__file__).parent == ROOT / "agents"


def test_every_module_says_what_it_is():
    """The first thing in a module is its docstring."""
    assert [str(path.relative_to(ROOT)) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_the_auditor_shares_the_rules_with_the_guard_and_nothing_else():
    """A mistake in what the guard does with its logs must not be made twice. Mistakes in the rules are for their own tests to find."""
    wrong = []
    for path in (ROOT / "ops" / "audit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = [name for name in names if name.split(".")[0] in ROOMS]
            wrong += [
                name for name in ours if not name.startswith(("rules.", "config.", "ops.audit", "ops.client_log", "streams.disconnect"))
            ]
    assert wrong == []
