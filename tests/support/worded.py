"""A short film with two sounds and two languages of subtitles."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from services.media.testfilm import FilmSpec
from tests.support.encoding import transform
from tests.support.stack import film_file

WORDED = FilmSpec(seconds=Fraction(20), width=640, height=360, cuts=(5.1, 10.3, 15.2), loud=None)
SUBTITLES = {"eng": "Good evening", "deu": "Guten Abend"}
#: Frames from one key frame to the next.
KEYS = 15
#: The note that is heard in each language.
PITCHES_HZ = {"eng": 440, "deu": 1000}


def worded_film(folder: Path) -> Path:
    """`WORDED` as a file: English and German sound, and one line of subtitles from 1 s to 19 s in each."""
    words, notes, maps, tags = [], [], ["-map", "0:v"], []
    for index, (language, line) in enumerate(SUBTITLES.items()):
        text = folder / f"{language}.srt"
        text.write_text(f"1\n00:00:01,000 --> 00:00:19,000\n{line}\n")
        words += ["-i", str(text)]
        notes += ["-f", "lavfi", "-i", f"sine=frequency={PITCHES_HZ[language]}:duration={WORDED.seconds}"]
        maps += ["-map", str(index + 1), "-map", str(index + 1 + len(SUBTITLES))]
        tags += [f"-metadata:s:s:{index}", f"language={language}"]
        tags += [f"-metadata:s:a:{index}", f"language={language}"]
    # Key frames alone make a storyboard: one every half second, and no picture that is decoded out of order.
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "16", "-g", str(KEYS), "-bf", "0"]
    codecs += ["-sc_threshold", "0", "-c:a", "aac", "-c:s", "mov_text"]
    plain = film_file(folder / "plain.mp4", WORDED)
    return transform(plain, folder / "worded.mp4", [], [*words, *notes, *maps, *codecs, *tags])
