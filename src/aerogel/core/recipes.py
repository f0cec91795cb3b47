"""The YAML that recipes are written in: plain data, no key twice, numbers as people write them."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["RecipeLoader"]


class RecipeLoader(yaml.SafeLoader):
    """Read YAML as plain data, refuse a key that occurs twice, and read 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict, and refuse a key that occurs twice where the other would be lost in silence."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1, which the library implements, reads 1e-3 as text for want of a dot.
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
