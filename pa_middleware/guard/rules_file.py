"""Rules as a file, JSON or TOML, and the JSON schema of both.

A file holds the settings of `Rules` by name. What is absent is the default. TOML has no null, so a kind of action that
is not judged has the threshold "off" in either format.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.errors import RulesError
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.success import SuccessMap
from pa_middleware.guard.tiers import KINDS

OFF = "off"
SCHEMA = "$schema"
"""A key that is allowed and ignored: editors find the schema by it."""


def load_rules(path: str | os.PathLike[str]) -> Rules:
    """Rules from a file whose name ends in .json or .toml.

    Raises:
        RulesError: the file is neither, cannot be parsed, or holds a setting that is unknown, not allowed or inert.
        OSError: the file cannot be read.
    """
    return _load(Path(path), lambda settings: settings)


def load_base(path: str | os.PathLike[str]) -> Rules:
    """Rules from a file as the settings that a calibration starts from.

    Its mode and calibration are left out. If it sets no threshold, 0.0 stands in for the one to be found.

    Raises:
        RulesError: as for `load_rules`.
        OSError: the file cannot be read.
    """

    def start(settings: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = {name: value for name, value in settings.items() if name not in ("mode", "calibration")}
        return {**kept, "threshold": 0.0} if kept.get("threshold") is None else kept

    return _load(Path(path), start)


def _load(file: Path, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Rules:
    parse = _by_suffix(file, {".json": _parse_json, ".toml": tomllib.loads})
    try:
        settings = parse(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, of TOML, of UTF-8
        raise RulesError(f"{file} cannot be read as {file.suffix[1:].upper()}: {error}") from error
    try:
        return _rules(change(_table("the file", settings)))
    except RulesError as error:
        raise RulesError(f"{file}: {error}") from error


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_twins)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twins = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
        raise ValueError(f"{', '.join(map(repr, twins))} is there more than once")
    return table


def save_rules(rules: Rules, path: str | os.PathLike[str]) -> None:
    """Write rules as JSON or TOML.

    Raises:
        RulesError: the file's name ends in neither.
        OSError: the file cannot be written.
    """
    import tomli_w

    file = Path(path)
    write = _by_suffix(file, {".json": lambda settings: json.dumps(settings, indent=2) + "\n", ".toml": tomli_w.dumps})
    file.write_text(write(_settings(rules)), encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a rules file. Loading checks more than it can say, inert settings above
    all."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Rules).json_schema()
    definitions = schema.pop("$defs")
    settings = schema["properties"]
    own = {"anyOf": [{"type": "number"}, {"const": OFF}, {"type": "null"}]}
    settings["draws"]["minimum"] = 1
    settings["draws_per_run"]["anyOf"][0]["minimum"] = 1
    settings["scoring_timeout"]["anyOf"][0]["exclusiveMinimum"] = 0
    settings["stop_at"]["anyOf"][0] |= {"exclusiveMinimum": 0, "exclusiveMaximum": 1}
    settings["abstain_message"]["minLength"] = 1
    kinds = [kind for kind in KINDS if kind != "default"]
    settings["thresholds"] |= {"propertyNames": {"enum": kinds}, "additionalProperties": own}
    for table in (schema, *definitions.values()):
        table["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of pa_middleware",
        "description": "Settings of a guard. What is absent is the default.",
        "type": "object",
        "additionalProperties": False,
        "properties": {SCHEMA: {"type": "string"}, **settings},
        "$defs": definitions,
    }


def _by_suffix(file: Path, known: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    if file.suffix not in known:
        raise RulesError(f"the rules file is {str(file)!r}; allowed: a name that ends in .json or .toml")
    return known[file.suffix]


_NAMES = frozenset(each.name for each in fields(Rules))


def _rules(settings: Mapping[str, Any]) -> Rules:
    given = {name: value for name, value in settings.items() if name != SCHEMA}
    if isinstance(given.get("rules"), Mapping):
        raise RulesError("'rules' is no setting; settings stand at the top of the file, in no table of their own")
    _check_names("setting", given, Rules)
    below = [name for name in _table("tools", given.get("tools", {})) if name in _NAMES]
    if below and not isinstance(given["tools"][below[0]], str):
        raise RulesError(f"{below[0]!r} stands among tools; in TOML, settings come before the first [table]")
    if "thresholds" in given:
        own = _table("thresholds", given["thresholds"])
        given["thresholds"] = {kind: None if value == OFF else value for kind, value in own.items()}
    if given.get("calibration") is not None:
        given["calibration"] = _calibration(given["calibration"])
    return Rules(**given)


def _calibration(settings: Any) -> Calibration:
    given = dict(_table("calibration", settings))
    success = given.get("success")
    if success is not None:
        parts = dict(_table("calibration.success", success))
        _complete("calibration.success", parts, SuccessMap)
        given["success"] = SuccessMap(**parts)
    _complete("calibration", given, Calibration)
    return Calibration(**given)


def _complete(what: str, given: Mapping[str, Any], kind: type) -> None:
    _check_names(f"key of {what}", given, kind)
    optional = {each.name for each in fields(kind) if each.default is not MISSING}
    missing = sorted({each.name for each in fields(kind)} - optional - set(given))
    if missing:
        raise RulesError(f"{what} lacks {', '.join(missing)}; a file written by `pa-middleware calibrate` has it")


def _check_names(what: str, given: Mapping[str, Any], kind: type) -> None:
    known = [each.name for each in fields(kind)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "leave it out"
            raise RulesError(f"{name!r} is no {what}; allowed: {', '.join(known)}; {hint}")


def _table(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RulesError(f"{what} holds {value!r:.100}; allowed: a table of names and values")
    return value


def _settings(rules: Rules) -> dict[str, Any]:
    """Plain values, tables last; None and what is empty left out."""
    plain = asdict(rules)
    plain["thresholds"] = {kind: OFF if own is None else own for kind, own in plain["thresholds"].items()}
    tables = {name: plain.pop(name) for name in ("thresholds", "tools", "calibration")}
    return {**_given(plain), **{name: _given(table) for name, table in tables.items() if table}}


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _given(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
        for name, value in table.items()
        if value is not None
    }
