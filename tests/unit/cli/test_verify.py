from __future__ import annotations

import pytest

from cli.commands.verify import Checked, EncodesDiffer, Findings, show
from cli.output import Output
from kino.encoder.v1 import resources_pb2 as encoder
from kino.encoder.v1.encoder_pb2 import VerifyEncodeResponse


def answer(worker: str, repeated: bytes) -> VerifyEncodeResponse:
    segment = encoder.VerifiedSegment(
        rendition_id="h264-240", number=3, published_sha256=b"one", repeated_sha256=repeated
    )
    return VerifyEncodeResponse(worker=f"workers/{worker}", segments=[segment])


def checked(second: VerifyEncodeResponse, third: VerifyEncodeResponse | None = None) -> Checked:
    return Checked(record=encoder.EncodeRecord(worker="workers/a"), second=second, third=third)


def told(one: Checked, capsys: pytest.CaptureFixture[str]) -> str:
    quarantined = {one.wrong: "Why."} if one.wrong else {}
    show(Output(), Findings(checked=[one], quarantined=quarantined))
    return capsys.readouterr().err.strip()


def test_an_encode_that_another_worker_repeats_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(checked(answer("b", b"one")), capsys) == "1 segments came out byte for byte the same."


def test_a_worker_that_repeats_its_own_encode_is_told_to_prove_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(checked(answer("a", b"one")), capsys).splitlines()[1] == (
        "1 of them were repeated by the very worker that made them, because no other answered: that shows the"
        " encode can be repeated, not that the worker is right."
    )


@pytest.mark.parametrize(
    ("third", "wrong", "verdict"),
    [
        (
            answer("c", b"two"),
            "workers/a",
            "workers/a is wrong: no tasks until",
        ),
        (
            answer("c", b"one"),
            "workers/b",
            "workers/b is wrong: no tasks until",
        ),
        (answer("c", b"three"), "", "Three workers made three different encodes: none is put in quarantine."),
        (None, "", "Fewer than three workers answered: nothing decides who is wrong"),
    ],
)
def test_the_worker_that_two_others_contradict_is_wrong_and_nobody_else(
    third: VerifyEncodeResponse | None, wrong: str, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = checked(answer("b", b"two"), third)
    assert one.wrong == wrong
    with pytest.raises(EncodesDiffer) as raised:
        told(one, capsys)
    assert verdict in raised.value.message
    assert raised.value.message.startswith("1 of 1 segments came out differently")
