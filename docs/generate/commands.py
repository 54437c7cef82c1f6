"""The commands: targets of the Makefile, and options of command lines.

The code is read and not imported: its libraries take a minute.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from docs.generate.source import ROOT, one_line, read_modules


def write_targets() -> Iterator[str]:
    """Yield a table of the targets of the Makefile."""
    yield "| command | what it does |"
    yield "|---|---|"
    for target, text in re.findall(r"(?m)^([a-z]+):.*?## (.*)$", (ROOT / "Makefile").read_text()):
        yield f"| `make {target}` | {one_line(text)} |"


def write_options() -> Iterator[str]:
    """Yield a chapter for each command line, with a table of its options."""
    trees = dict(read_modules())
    shared = trees.get(Path("serving/server.py"))  # the options of both servers
    for path, tree in trees.items():
        parser = _find_parser(tree)
        if parser is None or tree is shared or path.name == "stage.py":
            continue
        texts = _texts(tree)
        description = _keyword(parser, "description", texts)
        if shared and not description:
            names = [word.arg for word in _find_function(shared, "make_parser").args.args]
            texts = dict(zip(names, map(_literal, parser.args), strict=True))
            tree, description = shared, texts["description"]
        yield f"\n### python -m {'.'.join(path.with_suffix('').parts)}\n"
        yield f"{one_line(description)}\n"
        yield "| option | meaning |"
        yield "|---|---|"
        yield from _options(tree, texts)


def _find_function(tree: ast.Module, name: str) -> ast.FunctionDef:
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return next(found)


def _find_parser(tree: ast.Module) -> ast.Call | None:
    makers = ("argparse.ArgumentParser", "server.make_parser")
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return next((call for call in calls if ast.unparse(call.func) in makers), None)


def _options(tree: ast.Module, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield a row for each call of `add_argument`, which a module may call by a shorter name."""
    short = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith(".add_argument")
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: call.lineno):
        name = ast.unparse(call.func)
        if name.endswith(".add_argument") or name in short:
            yield _option(call, texts)


def _option(call: ast.Call, texts: Mapping[str, str]) -> str:
    names = ", ".join(f"`{ast.literal_eval(name)}`" for name in call.args)
    words = ("metavar", "choices", "default", "help")
    metavar, choices, default, meaning = (_keyword(call, word, texts) for word in words)
    shown = f" `{metavar}`" if metavar and names.startswith("`-") else ""
    if choices:
        meaning += f"; one of `{choices}`"
    if default and "default" not in meaning and default != "True":
        meaning += f"; default: {default}"
    return f"| {names}{shown} | {one_line(meaning)} |"


def _texts(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module gives names to, also within functions."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _keyword(call: ast.Call, name: str, texts: Mapping[str, str]) -> str:
    """Return an argument of a call as text; one that is computed has none."""
    value = next((word.value for word in call.keywords if word.arg == name), None)
    if isinstance(value, ast.JoinedStr):
        return "".join(
            _named(part.value, texts) if isinstance(part, ast.FormattedValue) else _literal(part)
            for part in value.values
        )
    return _named(value, texts) if isinstance(value, ast.Name) else _literal(value)


def _named(value: ast.expr, texts: Mapping[str, str]) -> str:
    return texts.get(ast.unparse(value), "")


def _literal(value: ast.expr | None) -> str:
    try:
        literal = "" if value is None else ast.literal_eval(value)
    except ValueError:
        return ""
    return ", ".join(map(str, literal)) if isinstance(literal, list | tuple) else str(literal)
