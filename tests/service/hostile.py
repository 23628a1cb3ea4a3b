"""What a stranger may send: bodies, headers, request lines and connections that no service should trip over."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = "application/json"
GOOD = b'{"inputs": "please refund my order"}'
OK = frozenset({200})
BAD = frozenset({400})
INVALID = frozenset({422})
MISSING = frozenset({404})
UNSUPPORTED = frozenset({415})
TOO_LARGE = frozenset({413})
TOO_MUCH_HEAD = frozenset({431})
TOO_SLOW = frozenset({408})
REFUSED = frozenset(range(400, 500))

PLACES = {"name": "tiny", "version": "1"}


def filled(template: str) -> str:
    """A path that follows a route's template."""
    return re.sub(r"{(\w+)}", lambda match: PLACES.get(match[1], "1"), template)


INFERENCE_ROUTES = [
    filled(template)
    for template, methods in ROUTES.items()
    if any(route.request is not None for route in methods.values())
]
V1_ROUTES = [route for route in INFERENCE_ROUTES if route.startswith("/v1/") and route != "/v1/embeddings"]


@dataclass(frozen=True)
class Body:
    """A body to POST, and the statuses that answer it."""

    name: str
    content: bytes | Callable[[], bytes]  # made when it is sent, where it is large
    status: frozenset[int]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": JSON})
    param: str | None = None  # what the error must name

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content()


@dataclass(frozen=True)
class Wire:
    """Bytes for a connection, as they are; a number is a pause in seconds."""

    name: str
    parts: tuple[bytes | float, ...]
    status: frozenset[int]
    answers: int = 1  # 0: none need come, and it is we who close


def request(
    *lines: bytes, method: bytes = b"POST", target: bytes = b"/v1/classify", body: bytes = GOOD, **options: bytes
) -> bytes:
    """One request; `lines` follow the usual headers, an option set to b"" leaves a usual header out."""
    usual = {"host": b"localhost", "content-type": JSON.encode(), "content-length": b"%d" % len(body)}
    usual |= {name.replace("_", "-"): value for name, value in options.items() if name != "version"}
    head = [b"%s %s %s" % (method, target, options.get("version", b"HTTP/1.1"))]
    head += [name.encode() + b": " + value for name, value in usual.items() if value]
    return b"\r\n".join([*head, *lines, b"", body])


def get(target: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    """One request without a body."""
    return request(*lines, method=method, target=target, body=b"", content_type=b"", content_length=b"")


def inputs(text: str | bytes) -> bytes:
    """A body that holds one text."""
    return b'{"inputs": "%s"}' % (text.encode() if isinstance(text, str) else text)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> Callable[[], bytes]:
    return lambda: b'{"inputs": ' + opening * depth + closing * depth + b"}"


def of(media_type: str, **headers: str) -> dict[str, str]:
    return {"content-type": media_type} | {name.replace("_", "-"): value for name, value in headers.items()}


BROTLI_BOMB = bytes.fromhex(  # 90,000,000 zeros
    "cbffff3ff82700e2b14020f7fe8fffff7ff04f00c4611180eefd1fffffffe09f0088c30200ddfb3ffeffffc13f0110870500"
    "baf77ffcffff837f02200e0b0074effff8ffff07ff04401c1600e8defff1ffff0ffe0980382c00d0bdffe3ffff1ffc130071"
    "5800a07bffc7ffff3ff82700e2b00040f7fe8fffff7ff04f00c4610180eefd5ffe2975e19f0088c302001da12e"
)

# --- Bodies that are wrong on every route -----------------------------------------------------------------------------

_JSON_FLAWS: dict[str, bytes] = {
    "empty": b"",
    "one space": b" ",
    "whitespace only": b" \t\r\n" * 50,
    "a word": b"hello",
    "a NUL": b"\x00",
    "a megabyte of NULs": b"\x00" * 1_000_000,
    "unclosed object": b'{"inputs": "a"',
    "unclosed string": b'{"inputs": "a',
    "unclosed escape": b'{"inputs": "\\',
    "unknown escape": b'{"inputs": "\\x41"}',
    "half an escape": b'{"inputs": "\\u00"}',
    "trailing comma": b'{"inputs": "a",}',
    "comma in a list": b'{"inputs": ["a",]}',
    "two values": b'{"inputs": "a"} {"inputs": "b"}',
    "garbage behind": b'{"inputs": "a"}garbage',
    "single quotes": b"{'inputs': 'a'}",
    "no quotes": b"{inputs: 1}",
    "a comment": b'{"inputs": /* hello */ "a"}',
    "a colon too many": b'{"inputs":: "a"}',
    "Python's words": b'{"inputs": None, "truncate": True}',
    "hexadecimal": b'{"inputs": "a", "top_k": 0x10}',
    "leading zero": b'{"inputs": "a", "top_k": 01}',
    "plus sign": b'{"inputs": "a", "top_k": +1}',
    "bare minus": b'{"inputs": "a", "top_k": -}',
    "number without end": b'{"inputs": "a", "threshold": 1e}',
    "number of a million digits": b'{"inputs": "a", "top_k": ' + b"9" * 1_000_000 + b"}",
    "tab in a string": b'{"inputs": "a\tb"}',
    "line break in a string": b'{"inputs": "a\nb"}',
    "raw NUL in a string": b'{"inputs": "a\x00b"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "Latin-1": '{"inputs": "Schlüssel"}'.encode("latin-1"),
    "lone high surrogate, escaped": b'{"inputs": "\\ud800"}',
    "lone low surrogate, escaped": b'{"inputs": "\\udc00"}',
    "surrogates in the wrong order": b'{"inputs": "\\udc00\\ud800"}',
    "surrogate before a letter": b'{"inputs": "\\ud83da"}',
    "surrogate in a field's name": b'{"\\ud800": "a"}',
    "lone surrogate, raw": inputs(b"\xed\xa0\x80"),
    "pair of surrogates, raw": inputs(b"\xed\xa0\xbd\xed\xb8\x80"),
    "overlong slash": inputs(b"\xc0\xaf"),
    "overlong NUL": inputs(b"\xc0\x80"),
    "overlong in four bytes": inputs(b"\xf0\x80\x80\xaf"),
    "beyond Unicode": inputs(b"\xf4\x90\x80\x80"),
    "five byte sequence": inputs(b"\xf8\x88\x80\x80\x80"),
    "stray continuation": inputs(b"a\x80b"),
    "cut off character": inputs(b"\xe4\xb8"),
    "byte FF": inputs(b"\xff"),
    "pickle": pickle.dumps({"inputs": "a"}),
    "pickle that runs a command": b"cposix\nsystem\n(S'true'\ntR.",
    "XML with an entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "YAML": b"inputs: !!python/object/apply:os.system ['true']\n",
    "form": b"inputs=a&top_k=1",
    "newline-delimited": GOOD + b"\n" + GOOD,
    "gzip without saying so": gzip.compress(GOOD, mtime=0),
}

_WRONG_TOP: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a string": b'"inputs"',
    "NaN": b"NaN",
    "a list": b"[]",
    "a list of requests": b"[" + GOOD + b"]",
    "an empty object": b"{}",
    "only an unknown field": b'{"text": "a"}',
    "a field in capitals": b'{"INPUTS": "a"}',
    "a field with NUL": b'{"inputs\\u0000": "a"}',
    "an empty name": b'{"": "a"}',
    "__proto__": b'{"__proto__": {"inputs": "a"}}',
    "__class__": b'{"__class__": "os.system", "__init__": {"__globals__": "a"}}',
    "a name of a megabyte": b'{"' + b"n" * 1_000_000 + b'": 1}',
    "a right-to-left name": '{"\u202einputs": "a"}'.encode(),
    "100,000 unknown fields": b'{"inputs": "a"' + b"".join(b',"f%d":1' % i for i in range(100_000)) + b"}",
}

_MEDIA_TYPES = (
    "application/vnd.bentoml+pickle",
    "application/x-pickle",
    "application/python-pickle",
    "application/vnd.bentoml.v1.ordered_dict+pickle",
    "application/vnd.bentoml.stream_outputs",
    "multipart/form-data; boundary=x",
    "multipart/mixed",
    "application/x-www-form-urlencoded",
    "application/xml",
    "text/xml",
    "text/plain",
    "text/html",
    "text/json",
    "application/jsonp",
    "application/json-patch+json",
    "application/json, text/plain",
    "application/x-ndjson",
    "application/yaml",
    "application/msgpack",
    "application/grpc",
    "application/zip",
    "image/png",
    "*/*",
    "json",
    "/",
    ";",
    "application/json\u00e9",
    "x" * 8000,
)

_ENCODINGS = ("gzip", "deflate", "br", "zstd", "compress", "x-gzip", "gzip, gzip", "identity, br", "GZIP", "none", "é")

BODIES: list[Body] = [
    *(Body(f"JSON: {name}", content, BAD) for name, content in _JSON_FLAWS.items()),
    *(Body(f"top: {name}", content, frozenset({400, 422})) for name, content in _WRONG_TOP.items()),
    *(Body(f"media type: {name[:60]}", GOOD, UNSUPPORTED, of(name)) for name in _MEDIA_TYPES),
    *(Body(f"encoding: {name}", GOOD, UNSUPPORTED, of(JSON, content_encoding=name)) for name in _ENCODINGS),
    Body("pickle as what it is", pickle.dumps(GOOD), UNSUPPORTED, of("application/vnd.bentoml+pickle")),
    Body(
        "pickle in BentoML's own envelope",
        pickle.dumps(GOOD),
        UNSUPPORTED,
        of("application/vnd.bentoml+pickle", payload_container="NdarrayContainer", args_number="1", batch_size="1"),
    ),
    Body("pickle as bytes", pickle.dumps(GOOD), REFUSED, of("application/octet-stream")),
    Body("a length of binary data", GOOD, REFUSED, of("application/octet-stream", inference_header_content_length="x")),
    Body(
        "multipart with a file",
        b'--x\r\ncontent-disposition: form-data; name="inputs"; filename="../../a"\r\n\r\na\r\n--x--\r\n',
        UNSUPPORTED,
        of("multipart/form-data; boundary=x"),
    ),
    Body("gzip bomb", lambda: gzip.compress(bytes(90_000_000), 1), UNSUPPORTED, of(JSON, content_encoding="gzip")),
    Body("deflate bomb", lambda: zlib.compress(bytes(90_000_000)), UNSUPPORTED, of(JSON, content_encoding="deflate")),
    Body("brotli bomb", BROTLI_BOMB, UNSUPPORTED, of(JSON, content_encoding="br")),
    Body("nesting of 100", nested(100), frozenset({400, 422})),
    Body("nesting of 10,000", nested(10_000), BAD),
    Body("nesting of 1,000,000", nested(1_000_000), BAD),
    Body("nesting of objects", nested(100_000, b'{"inputs":', b"}"), BAD),
    Body("nesting without end", lambda: b"[" * 5_000_000, BAD),
    Body("10 MB in one text", lambda: inputs(b"a" * 10_000_000), TOO_LARGE),
    Body("10 MB of spaces", lambda: b" " * 10_000_000, TOO_LARGE),
    Body("a list of 100,000 texts", lambda: json.dumps({"inputs": ["a"] * 100_000}).encode(), REFUSED),
    Body("a list of a million numbers", lambda: b'{"inputs": [' + b"1," * 10**6 + b"1]}", REFUSED),
    Body("a list of 300,000 objects", lambda: b'{"inputs": [' + b"{}," * 300_000 + b"{}]}", REFUSED),
]  # fmt: skip

# --- Bodies that are wrong by the fields of /v1 -----------------------------------------------------------------------

_WRONG_VALUES: dict[str, tuple[str, ...]] = {
    "inputs": (
        *("5", "1.5", "1e999", "NaN", "true", "null", "{}", '{"text": "a"}', "[null]", "[true]", '["a", 5]'),
        *('[["a"]]', '[{"text": "a"}]', '["a", NaN]'),
    ),
    "top_k": ("0", "-1", "1.5", "1e3", '"1"', "true", "[]", "{}", "NaN", "Infinity", "1e999", "-" + "9" * 4000),
    "threshold": ('"0.5"', "-0.1", "1.1", "true", "[]", "{}", "NaN", "Infinity", "-Infinity", "1e999", "-1e999"),
    "raw_scores": ('"true"', "1", "0", "null", "[]", "NaN"),
    "truncate": ('"window"', '"true"', "1", "0.0", "null", "[]", "NaN"),
    "embeddings": ('"tokens"', '["words"]', "[1]", "[null]", '[["tokens"]]', "{}", "true", '["TOKENS"]'),
    "encoding_format": ('"hex"', '"FLOAT"', '"base64\\u0000"', "1", "null", "[]"),
    "dtype": ('"float64"', '"FLOAT32"', '"object"', "32", "null", "{}"),
    "special_tokens": ('"false"', "1", "null", "[]"),
    "topk": ("1",),
    "url": ('"http://127.0.0.1/"',),
    "parameters": ('{"top_k": 1}',),
}

FIELD_BODIES: list[Body] = [
    *(
        Body(
            f"{name}: {value[:30]}",
            (f'{{"inputs": {value}}}' if name == "inputs" else f'{{"inputs": "login", "{name}": {value}}}').encode(),
            INVALID,
            param=name,
        )
        for name, values in _WRONG_VALUES.items()
        for value in values
    ),
    Body("embeddings: a million numbers", lambda: b'{"inputs": "a", "embeddings": [' + b"1," * 10**6 + b"1]}", INVALID),
    Body("a field twice, both wrong", b'{"inputs": 1, "inputs": 2}', INVALID, param="inputs"),
    Body("1001 texts", json.dumps({"inputs": ["a"] * 1001}).encode(), INVALID, param="inputs"),
    Body("an empty text", inputs(""), INVALID, param="inputs"),
    Body("spaces", inputs("   "), INVALID, param="inputs"),
    Body("NULs, escaped", inputs("\\u0000" * 1000), INVALID, param="inputs"),
    Body("control characters", inputs("\\u0001\\u0002\\u001f\\u007f"), INVALID, param="inputs"),
    Body("a byte order mark for a text", inputs("\ufeff"), INVALID, param="inputs"),
    Body("zero width spaces", inputs("\u200b" * 100_000), INVALID, param="inputs"),
    Body("directions without letters", inputs("\u202e\u202d\u2066\u2069" * 10_000), INVALID, param="inputs"),
]  # fmt: skip

# Legal, if odd: they get their answer.
ODD_BODIES: list[Body] = [
    Body("space around", b" \r\n\t" + GOOD + b"\r\n\r\n", OK),
    Body("an escaped name", b'{"\\u0069nputs": "login"}', OK),
    Body("a field twice", b'{"inputs": "login", "inputs": "refund"}', OK),
    Body("no texts", b'{"inputs": []}', OK),
    Body("a charset", GOOD, OK, of("application/json; charset=utf-8")),
    Body("a charset that is not meant", GOOD, OK, of("application/json; charset=utf-16")),
    Body("media type in capitals", GOOD, OK, of("Application/JSON ;")),
    Body("no media type", GOOD, OK, {}),
    Body("encoded as identity", GOOD, OK, of(JSON, content_encoding="identity")),
    Body("1000 texts", json.dumps({"inputs": ["a"] * 1000}).encode(), OK),
    Body("8 MB of space around", lambda: GOOD + b" " * 7_000_000, OK),
]

TEXTS: dict[str, str] = {
    "NUL in a word": "re\x00fund",
    "right to left": "\u202erefund my order\u202c",
    "Arabic and Hebrew": "أريد استرداد أموالي שלום",
    "combining flood": "a" + "\u0301" * 100_000,
    "Zalgo": "".join(letter + "\u0315\u0322\u0338\u0489" * 20 for letter in "refund"),
    "zero width between letters": "\u200b".join("refund my order"),
    "joined emoji": "👩‍👩‍👧‍👦" * 1000,
    "variation selectors": "\u2764" + "\ufe0f" * 1000,
    "flags cut in half": "🇩" * 999,
    "unassigned": "\u0378\U000e0fff",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "private use": "\ue000\U000f0000",
    "replacement character": "\ufffd",
    "ligature": "\ufdfa" * 1000,
    "mathematical letters": "𝓻𝓮𝓯𝓾𝓷𝓭",
    "Turkish capital": "İSTANBUL" * 100,
    "sharp s": "STRASSE ẞ ß",
    "line separators": "a\u2028b\u2029c\u0085d",
    "only punctuation": "?!" * 50_000,
    "one word of 200,000 letters": "a" * 200_000,
    "a million words": "a " * 1_000_000,
    "special tokens": "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <pad> <|endoftext|>",
    "word pieces": "##s ##ed ##",
    "template": "{{7*7}} ${7*7} <%= 7*7 %> #{7*7} {0.__class__} %s%s%n %(x)s",
    "SQL": "'; DROP TABLE models; --",
    "shell": "$(touch /tmp/x) `id` ; rm -rf / | cat",
    "log forging": "a\r\nlevel=critical ${jndi:ldap://127.0.0.1/a}",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "path": "../../../../etc/passwd\x00.csv",
    "JSON in a text": '{"inputs": ["a"], "__proto__": null}',
    "numbers": "1e999 NaN -0 Infinity 0x7fffffffffffffff",
    "pickle in Base64": "gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu",
}

# Addresses as texts; `{}` is a port of the test's own, to which nobody may come.
ADDRESSES = (
    "http://127.0.0.1:{}/",
    "https://127.0.0.1:{}/a.png",
    "http://localhost:{}/latest/meta-data/",
    "http://[::ffff:127.0.0.1]:{}/",
    "ftp://127.0.0.1:{}/a",
    "gopher://127.0.0.1:{}/_a",
    "s3://127.0.0.1:{}/bucket",
    "//127.0.0.1:{}/a",
    "file:///etc/passwd#{}",
    "data:text/plain,refund?{}",
)

# --- Headers ----------------------------------------------------------------------------------------------------------

_HEAD_FLAWS: dict[str, bytes] = {
    "length: a word": request(content_length=b"abc"),
    "length: negative": request(content_length=b"-1"),
    "length: with a sign": request(content_length=b"+36"),
    "length: hexadecimal": request(content_length=b"0x24"),
    "length: beyond 64 bits": request(content_length=b"9" * 30),
    "length: 5,000 digits": request(content_length=b"9" * 5000),
    "length: a list": request(content_length=b"36, 36"),
    "length: two that differ": request(b"content-length: 5"),
    "length: two that agree": request(b"content-length: 36"),
    "length and chunks": request(b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": request(
        b"transfer-encoding: chunked", b"content-length: 5", body=b"0\r\n\r\n", content_length=b""
    ),
    "transfer: gzip": request(b"transfer-encoding: gzip", content_length=b""),
    "transfer: chunked, then another": request(b"transfer-encoding: chunked, identity", content_length=b""),
    "transfer: nearly chunked": request(b"transfer-encoding: xchunked", content_length=b""),
    "header without colon": request(b"nonsense"),
    "header without name": request(b": a"),
    "space before the colon": request(b"x-a : a"),
    "space in a name": request(b"x a: a"),
    "NUL in a name": request(b"x\x00a: a"),
    "NUL in a value": request(b"x-a: a\x00b"),
    "bare carriage return in a value": request(b"x-a: a\rb"),
    "bare carriage return and a header": request(b"x-a: a\rcontent-length: 5"),
    "folded header": request(b"x-a: a\r\n b", b"\tc"),
    "non-ASCII name": request("x-ä: a".encode()),
    "control character in a value": request(b"x-a: \x01\x02"),
    "NUL in the request id": request(b"x-request-id: a\x00b"),
    "line feed alone": request().replace(b"\r\n", b"\n"),
    "HTTP/9.9": get(b"/livez").replace(b"HTTP/1.1", b"HTTP/9.9"),
    "HTTP/1.": get(b"/livez").replace(b"HTTP/1.1", b"HTTP/1."),
    "HTTPS/1.1": get(b"/livez").replace(b"HTTP/1.1", b"HTTPS/1.1"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "PROXY protocol": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(b"/livez"),
    "an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "NULs": bytes(100),
    "random bytes": bytes(range(255, -1, -1)),
    "lower-case method": get(b"/livez", method=b"get"),
    "unknown method": get(b"/livez", method=b"FETCH"),
    "method of 10,000 letters": get(b"/livez", method=b"A" * 10_000),
    "space in the method": get(b"/livez", method=b"GE T"),
    "space before the method": b" " + get(b"/livez"),
    "target without slash": get(b"livez"),
    "no target": b"GET  HTTP/1.1\r\nhost: a\r\n\r\n",
    "space in the target": get(b"/live z"),
    "non-ASCII target": get("/läuft".encode()),
    "byte FF in the target": get(b"/\xff\xfe"),
    "NUL in the target": get(b"/livez\x00"),
    "backslash for slash": get(b"\\livez"),
    "CONNECT": get(b"127.0.0.1:80", method=b"CONNECT"),
    "CONNECT without port": get(b"localhost", method=b"CONNECT"),
}

_CHUNKED = {"content_length": b"", "transfer_encoding": b"chunked"}
_BAD_CHUNKS: dict[str, bytes] = {
    "a size that is none": b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\n{}\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a size too small": b"1\r\n{}\r\n0\r\n\r\n",
    "line feeds alone": b"2\n{}\n0\n\n",
    "NUL in an extension": b"2;a=\x00\r\n{}\r\n0\r\n\r\n",
    "a flaw in a trailer": b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
}


def _chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


_ODD_HEADERS: dict[str, tuple[bytes, ...]] = {
    "1,000 headers": tuple(b"x-%d: a" % i for i in range(1000)),
    "a header 500 times": (b"x-a: b",) * 500,
    "a header of 60,000 bytes": (b"x-a: " + b"a" * 60_000,),
    "60,000 bytes of cookies": (b"cookie: " + b"a=b; " * 12_000,),
    "request id: 129 letters": (b"x-request-id: " + b"a" * 129,),
    "request id: 60,000 letters": (b"x-request-id: " + b"a" * 60_000,),
    "request id: non-ASCII": ("x-request-id: ümläut".encode(),),
    "request id: Latin-1": ("x-request-id: ümläut".encode("latin-1"),),
    "request id: a tab": (b"x-request-id: a\tb",),
    "request id: empty": (b"x-request-id:",),
    "request id: twice": (b"x-request-id: a", b"x-request-id: b"),
    "request id: quotes": (b'x-request-id: ","level":"critical',),
    "request id: markup": (b"x-request-id: <script>%0d%0aset-cookie: a=b</script>",),
    "accept: nonsense": (b"accept: \xff\xfe;;;,,,q=",),
    "accept: pickle": (b"accept: application/vnd.bentoml+pickle",),
    "accept: nothing": (b"accept: text/html;q=0, */*;q=0",),
    "accept: 60,000 commas": (b"accept: " + b"," * 60_000,),
    "accept: a quality of infinity": (b"accept: application/json;q=1e999",),
    "accept-encoding": (b"accept-encoding: gzip, br, zstd;q=nan, \xff",),
    "accept-charset": (b"accept-charset: utf-16",),
    "expect: continue": (b"expect: 100-continue",),
    "upgrade to a WebSocket": (
        b"connection: upgrade",
        b"upgrade: websocket",
        b"sec-websocket-version: 13",
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    ),
    "upgrade to HTTP/2": (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__"),
    "upgrade to nonsense": (b"connection: upgrade", b"upgrade: \xff/\xff"),
    "connection: nonsense": (b"connection: ,,, close, \xff, keep-alive",),
    "connection: names of headers": (b"connection: content-length, content-type, host",),
    "keep-alive": (b"keep-alive: timeout=999999999999, max=-1",),
    "host: nonsense": (b"host: \xff:99999999",),
    "host: with a path": (b"host: localhost/../..:80@evil",),
    "forwarded for": (b"x-forwarded-for: 999.1.1.1, \xff, ::::, a b",),
    "forwarded proto": (b"x-forwarded-proto: javascript", b"x-forwarded-host: evil", b"x-forwarded-port: -1"),
    "forwarded": (b'forwarded: for="[::1]:port;by=_;',),
    "original URL": (b"x-original-url: /metrics", b"x-rewrite-url: /metrics"),
    "method override": (b"x-http-method-override: DELETE",),
    "trace context": (b"traceparent: 00-zz-zz-zz", b"tracestate: " + b"a=b," * 1000, b"b3: \xff"),
    "baggage": (b"baggage: " + b"a=%00," * 5000,),
    "authorization": (b"authorization: Basic \xff\xfe",),
    "authorization: twice": (b"authorization: Bearer a", b"authorization: Bearer b"),
    "range": (b"range: bytes=0-0,5-2,-99999999999999999999",),
    "conditions": (b'if-match: "a"', b"if-modified-since: never", b"if-none-match: *"),
    "origin: null": (b"origin: null",),
    "origin: nonsense": (b"origin: \xff\xfe://",),
    "preflight without OPTIONS": (b"origin: https://a.example", b"access-control-request-method: \xff"),
    "BentoML's own": (b"bentoml-payload-meta: a", b"payload-container: b", b"args-number: 1e9", b"x-bentoml-name: c"),
    "length of a binary part": (b"inference-header-content-length: -5",),
    "content headers": (b"content-disposition: form-data; name=a", b"content-md5: a", b"content-range: bytes 0-1/1"),
    "smuggling by underscore": (b"content_length: 5", b"transfer_encoding: chunked"),
}

HEADERS: list[Wire] = [
    *(Wire(name, (content,), BAD) for name, content in _HEAD_FLAWS.items()),
    *(
        Wire(f"chunks: {name}", (request(body=content, **_CHUNKED),), frozenset({400, 422}))
        for name, content in _BAD_CHUNKS.items()
    ),
    *(Wire(name, (request(*lines),), OK) for name, lines in _ODD_HEADERS.items()),
    Wire("chunks: one byte each", (request(body=_chunks(GOOD, 1), **_CHUNKED),), OK),
    Wire("chunks: long extensions", (request(body=_chunks(GOOD, 5, b";a=" + b"b" * 50_000), **_CHUNKED),), OK),
    Wire("chunks: empty", (request(body=b"0\r\n\r\n", **_CHUNKED),), BAD),
    Wire(
        "chunks: a trailer",
        (request(body=_chunks(GOOD, 5)[:-2] + b"x-request-id: a\r\n\r\n", **_CHUNKED),),
        OK,
    ),
    Wire(
        "chunks: a trailer of a megabyte",
        (request(body=_chunks(GOOD, 5)[:-2] + b"x-a: " + b"a" * 1_000_000 + b"\r\n\r\n", **_CHUNKED),),
        frozenset({200, 431}),
    ),
    Wire("chunks: a trailer of 50 MB", (request(body=b"0\r\nx-a: " + b"a" * 50_000_000, **_CHUNKED),), TOO_MUCH_HEAD),
    Wire("chunks: an extension of 50 MB", (request(body=b"1;a=" + b"a" * 50_000_000, **_CHUNKED),), TOO_MUCH_HEAD),
    Wire("chunks: 9 MB", (request(body=_chunks(b" " * 9_000_000, 1_000_000), **_CHUNKED),), TOO_LARGE),
    Wire("a header of 70,000 bytes", (request(b"x-a: " + b"a" * 70_000),), TOO_MUCH_HEAD),
    Wire("a name of 70,000 bytes", (request(b"a" * 70_000 + b": b"),), TOO_MUCH_HEAD),
    Wire("a header of 50 MB", (request(b"x-a: " + b"a" * 50_000_000),), TOO_MUCH_HEAD),
    Wire("a header without end", (request()[: -len(GOOD) - 2], b"x-a: " + b"a" * 50_000_000), TOO_MUCH_HEAD),
    Wire("10,000 headers", (request(*(b"x-%d: a" % i for i in range(10_000))),), TOO_MUCH_HEAD),
    Wire("a million empty headers", (request(*(b"a:" for _ in range(1_000_000))),), TOO_MUCH_HEAD),
    Wire("HTTP/0.9", (b"GET /livez\r\n\r\n",), frozenset({200, 400})),
    Wire("HTTP/2.0 in words", (get(b"/livez").replace(b"HTTP/1.1", b"HTTP/2.0"),), frozenset({200, 400})),
    Wire("RTSP", (b"OPTIONS rtsp://127.0.0.1/ RTSP/1.0\r\n\r\n",), frozenset({400, 405})),
    Wire("HTTP/1.0", (request(version=b"HTTP/1.0"),), OK),
    Wire("HTTP/1.0 without length", (request(version=b"HTTP/1.0", content_length=b""),), BAD),
    Wire("no host", (request(host=b""),), OK),
    Wire("no length", (request(content_length=b""),), BAD),  # what follows the headers is another request, and is none
    Wire("expect: something else", (request(b"expect: miracles"),), frozenset({200, 417})),
    Wire("expect to send 9 MB", (request(b"expect: 100-continue", content_length=b"9000000", body=b""),), TOO_LARGE),
    Wire("empty lines first", (b"\r\n\r\n" + request(),), OK),
    Wire("a GET with a body", (request(method=b"GET", target=b"/livez"),), OK),
]  # fmt: skip

# --- Paths, queries and methods ---------------------------------------------------------------------------------------

_PATHS = (
    *("/nothing", "/v1", "/v1/", "/v1/classify/", "//v1/classify", "/V1/CLASSIFY", "/v1/classify/../info"),
    *("/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/v1/classify%2f..%2f..", "/%5c"),
    *("/v1/classify%00", "/%00", "/%ff%fe", "/%zz", "/%", "/%c0%ae%c0%ae/", "/v1/classify;a=b", "/v1/classify%20"),
    *("/%E2%80%AE", "/{name}", "/v1/{name}", "/%7Bname%7D", "/$%7Bjndi:ldap:%2f%2fa%7D", "/" + "a" * 60_000),
    *("/" + "a/" * 30_000, "/" + "%41" * 20_000, "/static_content", "/static_content/", "/static_content/../../app.py"),
    *("/static_content/%2e%2e/%2e%2e/__init__.py", "/static_content//etc/passwd", "/static_content/swagger-ui.css%00"),
    *("/static_content/swagger-ui.css/..", "/schema.json/", "/docs.json", "/healthz", "/favicon.ico", "/.git/config"),
    *("/.env", "/metrics/", "/livez/", "/readyz/..", "/openapi.json.", "/v2/models/..%2f..%2f/infer", "/wp-login.php"),
)
_QUERIES = ("?", "?a", "?a=b&a=c", "?%00", "?%ff", "?" + "a=b&" * 10_000, "?inputs=a", "?a[]=b", "?;", "#a", "?../..")
_METHODS = (
    *("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "LOCK", "SEARCH", "REPORT"),
    *("LINK", "PURGE", "M-SEARCH", "SUBSCRIBE", "SOURCE", "QUERY"),
)

TARGETS: list[Wire] = [
    *(Wire(f"path: {path[:50]} ({len(path)})", (get(path.encode()),), frozenset({400, 404})) for path in _PATHS),
    *(Wire(f"query: {query[:30]}", (get(b"/livez" + query.encode()),), OK) for query in _QUERIES),
    *(Wire(f"method: {name}", (request(method=name.encode()),), frozenset({400, 405})) for name in _METHODS),
    Wire("method: OPTIONS of everything", (get(b"*", method=b"OPTIONS"),), frozenset({400, 404})),
    Wire("method: POST to a probe", (request(target=b"/livez"),), frozenset({405})),
    Wire("method: DELETE of the description", (request(target=b"/schema.json", method=b"DELETE"),), frozenset({405})),
    Wire("a path of 70,000 bytes", (get(b"/" + b"a" * 70_000),), TOO_MUCH_HEAD),
    Wire("a path of 50 MB", (get(b"/" + b"a" * 50_000_000),), TOO_MUCH_HEAD),
    Wire("a query of 70,000 bytes", (get(b"/livez?" + b"a" * 70_000),), TOO_MUCH_HEAD),
    Wire("another server's address", (request(target=b"http://evil.example/v1/classify"),), OK),
    Wire("another server's address, unknown", (get(b"http://evil.example:99/nothing"),), MISSING),
    Wire("an address with a password", (get(b"http://a:b@evil.example/nothing"),), MISSING),
    Wire("an address that is none", (get(b"http://"),), BAD),
    Wire("an address of another kind", (get(b"file:///etc/passwd"),), frozenset({400, 404})),
    Wire("an escaped slash", (request(target=b"/v1%2fclassify"),), frozenset({200, 404})),
    Wire("escaped letters", (request(target=b"/v1/%63lassify"),), OK),
    *(
        Wire(f"{path.decode()}: {name}", (get(path, *lines),), frozenset({200, 206, 304, *REFUSED}))
        for path in (b"/static_content/swagger-ui.css", b"/schema.json")
        for name, lines in {
            "a range beyond its end": (b"range: bytes=99999999-",),
            "a range that is none": (b"range: bytes=x",),
            "a range of other things": (b"range: lines=1-2",),
            "a thousand ranges": (b"range: bytes=" + b",".join(b"%d-%d" % (i, i) for i in range(1000)),),
            "ranges that overlap": (b"range: bytes=" + b",".join([b"0-"] * 1000),),
            "a date that is none": (b"if-modified-since: \xff", b"if-range: \xff"),
            "a trace that is none": (b"traceparent: \xff", b"x-request-id: \xff", b"b3: 0"),
            "a body": (b"content-length: 5\r\n\r\nhello",),
        }.items()
    ),
]  # fmt: skip

# --- Connections, to a server that gives a request one second ---------------------------------------------------------

_HALF = len(GOOD) // 2
CONNECTIONS: list[Wire] = [
    Wire("nothing, then gone", (b"",), BAD, answers=0),
    Wire("half a request line, then gone", (b"POST /v1/cla",), BAD, answers=0),
    Wire("half a header, then gone", (request()[:60],), BAD, answers=0),
    Wire("headers alone, then gone", (request()[: -len(GOOD)],), BAD, answers=0),
    Wire("half a body, then gone", (request()[:-_HALF],), BAD, answers=0),
    Wire("a request, then gone", (request(),), OK, answers=0),
    Wire("half a chunk, then gone", (request(body=b"ff\r\n{", **_CHUNKED),), BAD, answers=0),
    Wire("a body that never comes", (request(body=b"", content_length=b"36"),), TOO_SLOW),
    Wire("half a body", (request()[:-_HALF],), TOO_SLOW),
    Wire("chunks without end", (request(body=b"1\r\n{\r\n", **_CHUNKED),), TOO_SLOW),
    Wire("a chunk that never comes", (request(body=b"ff\r\n", **_CHUNKED),), TOO_SLOW),
    Wire("a body promised and not sent", (request(b"expect: 100-continue", content_length=b"36", body=b""),), TOO_SLOW),
    Wire(
        "a slow body",
        (request(body=b"", content_length=b"36"), *(part for byte in GOOD[:20] for part in (bytes([byte]), 0.1))),
        TOO_SLOW,
    ),
    Wire(
        "slow chunks",
        (request(body=b"", **_CHUNKED), *(part for _ in range(20) for part in (b"1\r\n \r\n", 0.1))),
        TOO_SLOW,
    ),
    Wire(
        "a slow chunk extension",
        (request(body=b"1;", **_CHUNKED), *(part for _ in range(20) for part in (b"a", 0.1))),
        TOO_SLOW,
    ),
    Wire("a request in single bytes", tuple(bytes([byte]) for byte in request()), OK),
    Wire("a body in two halves", (request()[:-_HALF], 0.3, request()[-_HALF:]), OK),
    Wire("three requests at once", (request() * 3,), OK, answers=3),
    Wire("twenty requests at once", (request() * 20,), OK, answers=20),
    Wire("requests and an empty line between", ((request() + b"\r\n") * 3,), OK, answers=3),
    Wire("a wrong request, then a good one", (request(body=b"{"), request()), frozenset({200, 400}), answers=2),
    Wire("a refused body, then a request", (request(content_type=b"a/b") + request(),), frozenset({415, 200}), 2),
    Wire("a body longer than announced", (request(content_length=b"20"),), BAD),
    Wire("a request and garbage", (request() + b"\x00\xff garbage\r\n\r\n",), frozenset({200, 400})),
    Wire("a request and half of another", (request(), 0.2, request()[:40]), OK),
    Wire("an upgrade and NULs", (request(b"connection: upgrade", b"upgrade: a") + bytes(9),), frozenset({200, 400})),
    Wire("a length of 0 and a body", (request(content_length=b"0"),), BAD),
]  # fmt: skip
