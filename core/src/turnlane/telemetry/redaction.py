"""Redaction: the second line of defence against secrets in output, and the search that proves it.

The first line is `turnlane.api.Secret`, which never prints. A value that was taken out of it and
found its way into a text all the same is replaced here, in the spellings it is likely to have.
"""

import json
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import msgspec

from turnlane.api.secrets import Secret

REDACTED = "***"
"""What stands in place of a secret; the same as `str(Secret(...))`."""

MIN_LENGTH = 4
"""Shorter values are not searched for: they would blank ordinary words."""

_URL_SAFE_SETS = ("", "/", "!'()*", "!$&'()*+,;=:@/?#")
"""What encoders leave alone: strict ones, Python's, `encodeURIComponent`, `encodeURI`."""

AnySecret = Secret[str] | Secret[bytes]


def spellings(value: str | bytes) -> dict[str, frozenset[str]]:
    """Return how `value` may look in a text, by the name of the encoding.

    Base64 is given for all three alignments inside a longer text, without the characters that
    depend on what stands beside the value. Spellings under `MIN_LENGTH` characters are left out.
    """
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    text = value if isinstance(value, str) else _text_of(value)
    url = {quote(raw, safe=safe) for safe in _URL_SAFE_SETS} | {quote_plus(raw)}
    found: dict[str, set[str]] = {
        "plain": set(),
        "json": set(),
        "repr": {repr(raw)[2:-1]},
        "url": url | {_lower_escapes(spelling) for spelling in url},
        "base64": set(_base64_spellings(raw)),
        "hex": {raw.hex(), raw.hex().upper()},
    }
    if text is not None:
        found["plain"].add(text)
        found["repr"].add(repr(text)[1:-1])
        escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        found["json"] = escaped | {spelling.replace("/", "\\/") for spelling in escaped}
    return {
        name: frozenset(text for text in texts if len(text) >= MIN_LENGTH)
        for name, texts in found.items()
    }


class Redactor:
    """Knows the secrets in use and replaces them in any text.

    Holds at most `capacity` secrets; when one more comes, the one that was added longest ago is
    forgotten. A secret added twice stays until it was removed twice.
    """

    def __init__(self, capacity: int = 256) -> None:
        if capacity < 1:
            raise ValueError("a redactor holds at least one secret")
        self._capacity = capacity
        self._uses: dict[AnySecret, int] = {}
        self._needles: tuple[str, ...] = ()
        self._by_secret: dict[AnySecret, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._uses)

    def add(self, *secrets: AnySecret) -> None:
        """Hide `secrets` from now on; those under `MIN_LENGTH` characters or bytes are ignored."""
        for secret in secrets:
            if len(secret.reveal()) < MIN_LENGTH:
                continue
            # Taken out and put back: a dict keeps the order of insertion, oldest first.
            self._uses[secret] = self._uses.pop(secret, 0) + 1
            if secret not in self._by_secret:
                texts = spellings(secret.reveal()).values()
                self._by_secret[secret] = frozenset[str]().union(*texts)
            if len(self._uses) > self._capacity:
                self._forget(next(iter(self._uses)))
        self._collect()

    def remove(self, *secrets: AnySecret) -> None:
        """Take back one `add` of each of `secrets`; unknown ones are ignored."""
        for secret in secrets:
            uses = self._uses.get(secret, 0)
            if uses > 1:
                self._uses[secret] = uses - 1
            elif uses == 1:
                self._forget(secret)
        self._collect()

    def redact(self, text: str) -> str:
        """Return `text` with every spelling of every known secret replaced by `***`.

        Overlapping and adjoining finds are replaced as one, so that no rest of a secret remains.
        """
        spans = sorted(_occurrences(text, self._needles))
        if not spans:
            return text
        pieces: list[str] = []
        position = 0
        start, end = spans[0]
        for next_start, next_end in spans[1:]:
            if next_start <= end:
                end = max(end, next_end)
            else:
                pieces += (text[position:start], REDACTED)
                position, start, end = end, next_start, next_end
        pieces += (text[position:start], REDACTED, text[end:])
        return "".join(pieces)

    def _forget(self, secret: AnySecret) -> None:
        del self._uses[secret]
        del self._by_secret[secret]

    def _collect(self) -> None:
        # Replaced as a whole, so that a thread that logs meanwhile sees the old set or the new one.
        self._needles = tuple(frozenset[str]().union(*self._by_secret.values()))


REDACTOR = Redactor()
"""The process's redactor: the runtime adds its secrets here, logs and spans are cleaned by it."""


def find_leaks(output: str | bytes, secrets: Iterable[AnySecret | str | bytes]) -> list[str]:
    """Search `output` for planted secrets; return one line for each find, without the secret.

    Looks for every spelling, for one encoding inside another (base64 of JSON, URL-encoded base64),
    and through line breaks. An empty list means that none was found. For tests: it is thorough,
    not fast. Raises `ValueError` for a secret too short to be searched for.
    """
    if isinstance(output, bytes):
        output = output.decode("utf-8", "surrogateescape")
    unfolded = "".join(output.split())
    views = {output, unfolded}
    views |= {decode(view) for view in tuple(views) for decode in (unquote, unquote_plus)}
    leaks: list[str] = []
    for number, secret in enumerate(secrets):
        value = secret.reveal() if isinstance(secret, Secret) else secret
        if len(value) < MIN_LENGTH:
            raise ValueError(f"secret {number} is too short to be searched for")
        for name, texts in spellings(value).items():
            searched = [(name, texts)] + [
                (f"{name} in {outer}", nested)
                for text in texts
                for outer, nested in spellings(text).items()
            ]
            leaks += [
                f"secret {number} as {label}"
                for label, needles in searched
                if any(needle in view for needle in needles for view in views)
            ]
    return list(dict.fromkeys(leaks))


def enc_hook(value: object) -> object:
    """Encode a `Secret` as `***`: the `enc_hook` for msgspec encoders.

    Raises `NotImplementedError` for other types that msgspec does not know, as msgspec asks for.
    """
    if isinstance(value, Secret):
        return REDACTED
    raise NotImplementedError(f"objects of type {type(value).__name__} are not encoded")


def encode_json(value: object) -> bytes:
    """Encode structs and plain values as compact JSON, secrets as `***`.

    Raises `NotImplementedError` or `TypeError` for what JSON cannot hold.
    """
    return msgspec.json.encode(value, enc_hook=enc_hook)


def _text_of(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _lower_escapes(text: str) -> str:
    head, *escaped = text.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in escaped)])


def _base64_spellings(raw: bytes) -> Iterable[str]:
    for shift in range(3):
        encoded = b64encode(bytes(shift) + raw).rstrip(b"=").decode()
        # A character carries six bits: those that hold bits of a neighbour are not the value's own.
        own_from = (0, 2, 3)[shift]
        own_until = len(encoded) - (1 if (shift + len(raw)) % 3 else 0)
        own = encoded[own_from:own_until]
        yield own
        yield own.replace("+", "-").replace("/", "_")


def _occurrences(text: str, needles: Iterable[str]) -> Iterable[tuple[int, int]]:
    for needle in needles:
        start = text.find(needle)
        while start >= 0:
            yield start, start + len(needle)
            start = text.find(needle, start + 1)
