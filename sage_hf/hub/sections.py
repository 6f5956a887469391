"""Cards that are written again and again, by a program, and edited in between, by people."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml

SECTION = re.compile(
    r"<!-- sage_hf: (?P<name>[a-z_]+) (?P<digest>[0-9a-f]{12}) -->\n(?P<body>.*?)\n<!-- /sage_hf: (?P=name) -->",
    re.DOTALL,
)
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)

BUILT = "built"
"""The section that holds the whole card of a folder that was built, until it is pushed."""

OF_THE_RUN = (
    "base_model",
    "base_model_relation",
    "co2_eq_emissions",
    "datasets",
    "library_name",
    "metrics",
    "model-index",
)
"""Keys of the front matter that only a run can know: what an earlier one said goes."""

UNITED = ("tags", "task_categories")
"""Keys whose lists hold what people added and what is generated."""


def section(name: str, body: str) -> str:
    """
    A part of a card between two comments that don't show; the first holds a digest of the part as it was written.

    Args:
        name (`str`): lower-case letters and underscores.
        body (`str`): Markdown.

    Example:

    ```python
    >>> from sage_hf.hub.sections import section
    >>> print(section("use", "Load it."))
    <!-- sage_hf: use ebc977e64417 -->
    Load it.
    <!-- /sage_hf: use -->

    ```
    """
    body = body.strip("\n")
    return f"<!-- sage_hf: {name} {_digest(body)} -->\n{body}\n<!-- /sage_hf: {name} -->"


def refresh(existing: str, generated: str, *, data: bool = False) -> str:
    """
    A card written anew, with what people did to the one before.

    Sections that stand as they were written are replaced. A section that someone edited stays as it is, one that
    someone removed stays away, and all text outside of sections stays where it is. A card without any section is
    someone's own and is left alone. In the front matter, what someone added stays, tags are united, and a value that
    the run does not know (a licence, say) stays; what only a run can know follows the run.

    A dataset is loaded by its card's front matter, so that one is merged into a card of someone's own as well.

    Args:
        existing (`str`): the card before, whole.
        generated (`str`): the card that the run gives.
        data (`bool`, *optional*, defaults to `False`): whether it is a dataset's.

    Example:

    ```python
    >>> from sage_hf.hub.sections import refresh, section
    >>> before = "My title\\n\\n" + section("results", "0.5") + "\\n\\nAsk me."
    >>> "0.6" in refresh(before, section("results", "0.6")) and "Ask me." in refresh(before, section("results", "0.6"))
    True
    >>> refresh(before.replace("0.5", "about 0.5"), section("results", "0.6")) == before.replace("0.5", "about 0.5")
    True

    ```
    """
    existing = _unbuilt(existing, generated)
    if SECTION.search(existing) is None:
        front = FRONT_MATTER.match(existing)
        if not existing[front.end() if front else 0 :].strip():
            # Nothing but front matter, as the Hub's own form for new repositories writes it.
            existing = (front[0] if front else "") + body_of(generated)
        elif not data:
            return existing
    bodies = {match["name"]: match[0] for match in SECTION.finditer(generated)}

    def replaced(match: re.Match[str]) -> str:
        untouched = match["digest"] == _digest(match["body"])
        return bodies.get(match["name"], match[0]) if untouched else match[0]

    text = SECTION.sub(replaced, existing)
    before, now = FRONT_MATTER.match(text), FRONT_MATTER.match(generated)
    if before is None and now is not None and data:
        return now[0] + text
    if before is None or now is None:
        return text
    merged = _merge(_front_matter_of(before[1]), yaml.safe_load(now[1]) or {})
    return f"---\n{front_matter(merged)}---\n{text[before.end() :]}"


def body_of(card: str) -> str:
    """A card without its front matter."""
    front = FRONT_MATTER.match(card)
    return card[front.end() if front else 0 :]


def _unbuilt(existing: str, generated: str) -> str:
    """The short card of a built folder, where it stands as it was written, makes room for the whole one."""
    for match in SECTION.finditer(existing):
        if match["name"] == BUILT and match["digest"] == _digest(match["body"]):
            return existing[: match.start()] + body_of(generated).strip("\n") + existing[match.end() :]
    return existing


def front_matter(data: dict[str, Any]) -> str:
    """YAML in the order of its keys, as the Hub's own tools write it."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _front_matter_of(text: str) -> dict[str, Any]:
    """The keys that someone wrote, with values as they stand: `no` is Norwegian, and `1.10` is not 1.1."""
    try:
        data = yaml.load(text, Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of README.md is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("The front matter of README.md should hold `key: value` lines.")
    return data


def _merge(existing: dict[str, Any], generated: dict[str, Any]) -> dict[str, Any]:
    added = {key: value for key, value in existing.items() if key not in generated and key not in OF_THE_RUN}
    merged = generated | added
    for key in UNITED:
        old = existing.get(key)
        if isinstance(old, list):
            merged[key] = list(dict.fromkeys([*generated.get(key, []), *old]))
    return merged


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]
