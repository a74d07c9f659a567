"""What it costs to verify an access token in Python, beside what others' libraries cost: the median of rounds, in microseconds. Needs what the
package's tests install and its native half in a release build; see ../README.md."""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt as jose
from joserfc.jwk import OKPKey

from rekindle import Rekindle

ROUNDS, KNOWN, NEW = 9, 20_000, 1_000


def median(prepare: Callable[[], Any], count: int, work: Callable[[Any, int], Any]) -> float:
    """Microseconds, of rounds prepared anew; the first ones warm up."""
    rounds = []
    for _ in range(ROUNDS + 2):
        prepared = prepare()
        before = time.perf_counter_ns()
        for at in range(count):
            work(prepared, at)
        rounds.append((time.perf_counter_ns() - before) / 1000 / count)
    return statistics.median(rounds[2:])


private = Ed25519PrivateKey.generate()
public = private.public_key()
key = OKPKey.generate_key("Ed25519")
drawn = 0


def claims() -> dict[str, Any]:
    global drawn
    drawn += 1
    own = {"product": "default", "env": "dev", "sid": "0199a3b4-7c00-7000-8000-000000000001", "gen": 0, "role": "admin"}
    now = int(time.time())
    return {**own, "iss": "http://localhost", "sub": "alice", "aud": "default/dev", "iat": now, "exp": now + 900, "jti": str(drawn)}


with tempfile.TemporaryDirectory() as folder:
    rekindle = Rekindle.embedded(data_dir=f"{folder}/data", development=True)

    def own() -> str:
        global drawn
        drawn += 1
        return rekindle.start(user_id=f"user-{drawn}", claims={"role": "admin"}).access_token

    def many(make: Callable[[], str]) -> Callable[[], list[str]]:
        return lambda: [make() for _ in range(NEW)]

    def py() -> str:
        return jwt.encode(claims(), private, "EdDSA", {"kid": "k", "typ": "at+jwt"})

    def pyjwt(token: str) -> Any:
        return jwt.decode(token, public, ["EdDSA"], audience="default/dev", issuer="http://localhost")

    def rfc() -> str:
        return jose.encode({"alg": "Ed25519", "kid": "k", "typ": "at+jwt"}, claims(), key, ["Ed25519"])

    def joserfc(token: str) -> Any:
        return jose.decode(token, key, ["Ed25519"])

    def signature(token: str) -> None:
        head, _, tail = token.rpartition(".")
        public.verify(jwt.utils.base64url_decode(tail), head.encode())

    async def awaited() -> float:
        token, aio = own(), rekindle.aio
        rounds = []
        for _ in range(ROUNDS):
            before = time.perf_counter_ns()
            for _ in range(KNOWN):
                await aio.verify(token)
            rounds.append((time.perf_counter_ns() - before) / 1000 / KNOWN)
        return statistics.median(rounds)

    rows = [
        ("rekindle", median(own, KNOWN, lambda token, _: rekindle.verify(token)), median(many(own), NEW, lambda tokens, at: rekindle.verify(tokens[at]))),
        ("PyJWT", median(py, 1_000, lambda token, _: pyjwt(token)), median(many(py), NEW, lambda tokens, at: pyjwt(tokens[at]))),
        ("joserfc", median(rfc, 1_000, lambda token, _: joserfc(token)), median(many(rfc), NEW, lambda tokens, at: joserfc(tokens[at]))),
        ("cryptography, the signature alone", median(py, 1_000, lambda token, _: signature(token)), median(many(py), NEW, lambda tokens, at: signature(tokens[at]))),
    ]
    print(f"Python {sys.version.split()[0]}\n\n| | known token, µs | new token, µs |\n|---|---:|---:|")
    for name, known, fresh in rows:
        print(f"| {name} | {known:.2f} | {fresh:.1f} |")
    print(f"| rekindle, awaited | {asyncio.run(awaited()):.2f} | |")
