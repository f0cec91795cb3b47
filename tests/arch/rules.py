"""Rules about what code may say: each takes one syntax node and gives the fault, or None."""

from __future__ import annotations

import ast
from collections.abc import Callable

Rule = Callable[[ast.AST], str | None]

PICKLERS = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save", "torch.hub.load", "pandas.read_pickle", "pd.read_pickle"}
UNSAFE_YAML = {"yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"}
YAML_LOADS = {"yaml.load", "yaml.load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "BaseLoader"}
OWN_LOADERS = {"RecipeLoader"}  # see only_safe_loaders
MUTABLE_CALLS = {"bytearray", "dict", "list", "set", "defaultdict", "deque"}


def dotted(node: ast.AST) -> str:
    """Give ``a.b.c`` for a chain of names and attributes, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def imported(node: ast.AST) -> list[str]:
    """List the modules that an import statement, or a call of ``import_module`` with a constant, names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        module = node.module or ""
        return [module, *(f"{module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
        return [
            arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
    return []


def no_pickle(node: ast.AST) -> str | None:
    """Nothing that can run code on load."""
    for module in imported(node):
        if module.partition(".")[0] in PICKLERS or module in PICKLING_CALLS | UNSAFE_YAML | YAML_LOADS:
            return f"imports {module}"
    if not isinstance(node, ast.Call):
        return None
    name = dotted(node.func)
    if name in PICKLING_CALLS | UNSAFE_YAML:
        return f"calls {name}"
    if name in YAML_LOADS and not any(_names_safe_loader(keyword) for keyword in node.keywords):
        return f"calls {name} without a safe loader"
    for keyword in node.keywords:
        loads = keyword.arg == "allow_pickle" or keyword.arg == "trust_remote_code"
        if loads and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            return f"passes {keyword.arg}"
    return None


def _names_safe_loader(keyword: ast.keyword) -> bool:
    return keyword.arg == "Loader" and dotted(keyword.value).rpartition(".")[2] in SAFE_LOADERS | OWN_LOADERS


def only_safe_loaders(node: ast.AST) -> str | None:
    """A YAML loader of our own is a child of the safe one; only then may it be in ``OWN_LOADERS``."""
    if not isinstance(node, ast.ClassDef):
        return None
    parents = {dotted(parent) for parent in node.bases}
    if any(parent.startswith("yaml.") for parent in parents) or node.name in OWN_LOADERS:
        safe = parents <= {f"yaml.{name}" for name in SAFE_LOADERS}
        return None if safe and node.name in OWN_LOADERS else f"{node.name} is no safe YAML loader"
    return None


def no_eval(node: ast.AST) -> str | None:
    """No code made from text."""
    if isinstance(node, ast.Call) and dotted(node.func) in {"eval", "exec", "builtins.eval", "builtins.exec"}:
        return f"calls {dotted(node.func)}"
    return None


def no_torchvision(node: ast.AST) -> str | None:
    """A torchvision that does not match torch breaks transformers, so nothing here may need one."""
    for module in imported(node):
        if module.partition(".")[0] == "torchvision":
            return f"imports {module}"
    return None


def no_assert(node: ast.AST) -> str | None:
    """``python -O`` removes assertions: what a user gave is checked by raising."""
    return "asserts" if isinstance(node, ast.Assert) else None


def no_bare_except(node: ast.AST) -> str | None:
    """A bare except also catches Ctrl-C."""
    return "has a bare except" if isinstance(node, ast.ExceptHandler) and node.type is None else None


def no_mutable_default(node: ast.AST) -> str | None:
    """A mutable default leaks from one call to the next."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return None
    for default in [*node.args.defaults, *node.args.kw_defaults]:
        if isinstance(default, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
            return "has a mutable default"
        if isinstance(default, ast.Call) and dotted(default.func).rpartition(".")[2] in MUTABLE_CALLS:
            return "has a mutable default"
    return None


def no_global(node: ast.AST) -> str | None:
    """No state of the process."""
    return f"declares global {', '.join(node.names)}" if isinstance(node, ast.Global) else None


def no_star(node: ast.AST) -> str | None:
    """A star hides where a name comes from."""
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        return f"imports * from {node.module}"
    return None


def faults(tree: ast.AST, rule: Rule) -> list[str]:
    """List every fault that a rule finds in a tree, with its line."""
    found = []
    for node in ast.walk(tree):
        fault = rule(node)
        if fault is not None:
            found.append(f"line {getattr(node, 'lineno', 0)} {fault}")
    return found
