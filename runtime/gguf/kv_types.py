"""The types of a KV cache: those of its keys and of its values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.base.errors import UsageError
from runtime.gguf.types import BY_NAME, GgmlType

# llama.cpp common/arg.cpp, kv_cache_types.
_NAMES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_APART = re.compile(r"(?:([kv])=)([^=,]*)")


@dataclass(frozen=True, slots=True)
class KvTypes:
    """The types of keys and values."""

    keys: GgmlType
    values: GgmlType

    @property
    def bits(self) -> float:
        """Bits of a key and a value together."""
        return self.keys.bits_per_weight + self.values.bits_per_weight


def kv_types(text: str) -> KvTypes:
    """The types that `text` names: "q8_0" for both, or "k=q8_0,v=q4_0". A type that is left out is f16.

    Raises UsageError for another name or form.
    """
    if "=" not in text:
        kind = _kv_type(text)
        return KvTypes(kind, kind)
    found: dict[str, GgmlType] = {}
    for part in text.split(","):
        said = _APART.fullmatch(part.strip())
        if said is None or said[1] in found:
            raise UsageError(f"{text!r} does not name types of keys and values", hint="such as k=q8_0,v=q4_0")
        found[said[1]] = _kv_type(said[2])
    f16 = BY_NAME["F16"]
    return KvTypes(found.get("k", f16), found.get("v", f16))


def kv_types_in(text: str) -> tuple[str, ...]:
    """The names in "f16,k=q8_0,v=q4_0", each once: a "v=" after a "k=" belongs to it. `kv_types` checks them."""
    found: list[str] = []
    for word in (part.strip().lower() for part in text.split(",")):
        if found and (found[-1][:2], word[:2]) in (("k=", "v="), ("v=", "k=")):
            found[-1] += f",{word}"
        else:
            found.append(word)
    return tuple(dict.fromkeys(found))


def _kv_type(name: str) -> GgmlType:
    if name not in _NAMES:
        raise UsageError(
            f"{name!r} is not a type of KV cache", hint=f"one of {', '.join(_NAMES)}, or apart: k=q8_0,v=q4_0"
        )
    return BY_NAME[name.upper()]
