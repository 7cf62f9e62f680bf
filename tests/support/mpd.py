"""What ISO/IEC 23009-1 asks of a manifest: the form by `mpd.xsd`, and rules that a schema cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import xmlschema

NAMESPACE = "{urn:mpeg:dash:schema:mpd:2011}"
_SCHEMA = xmlschema.XMLSchema10(Path(__file__).with_name("mpd.xsd"))
_NEEDED = {"static": ["mediaPresentationDuration"], "dynamic": ["availabilityStartTime", "publishTime"]}


def faults(manifest: str) -> list[str]:
    """What is wrong with it, in words; nothing if it holds."""
    root = ElementTree.fromstring(manifest)
    wrongs = [f"{error.path}: {error.reason}" for error in _SCHEMA.iter_errors(root)]
    return [
        *wrongs,
        *_missing(root),
        *(wrong for one in root.iter(f"{NAMESPACE}AdaptationSet") for wrong in _set(one)),
    ]


def _missing(root: ElementTree.Element) -> Iterator[str]:
    """Table 3: what each type of presentation has to say."""
    for name in _NEEDED[root.get("type", "static")]:
        if name not in root.attrib:
            yield f"MPD has no {name}"


def _set(adaptation: ElementTree.Element) -> Iterator[str]:
    """Table 5, 7 and 16: what each representation has to have, by itself or from its set."""
    for one in adaptation.findall(f"{NAMESPACE}Representation"):
        said = {**adaptation.attrib, **one.attrib}
        templates = [
            *adaptation.findall(f"{NAMESPACE}SegmentTemplate"),
            *one.findall(f"{NAMESPACE}SegmentTemplate"),
        ]
        media = {key: value for template in templates for key, value in template.attrib.items()}
        if "mimeType" not in said:
            yield f"{one.get('id')}: no mimeType"
        if said.get("contentType") in ("video", "audio") and not {"codecs", "startWithSAP"} <= said.keys():
            yield f"{one.get('id')}: no codecs, or nothing on access points"
        if bool(templates) == (one.find(f"{NAMESPACE}BaseURL") is not None):
            yield f"{one.get('id')}: neither one file nor a template, or both"
        if templates and "$Number$" not in media.get("media", "") and "$Time$" not in media.get("media", ""):
            yield f"{one.get('id')}: all its segments have one address"
        timelines = [line for template in templates for line in template.iter(f"{NAMESPACE}SegmentTimeline")]
        if templates and bool(timelines) == ("duration" in media):
            yield f"{one.get('id')}: lengths of segments are said twice, or not at all"
        yield from (f"{one.get('id')}: {wrong}" for line in timelines for wrong in _timeline(line))


def _timeline(line: ElementTree.Element) -> Iterator[str]:
    """5.3.9.6: segments follow one another and do not overlap; the first starts at 0 unless it says where."""
    end = 0
    for entry in line:
        start = int(entry.get("t", end))
        if start < end or int(entry.attrib["d"]) <= 0:
            yield f"a segment at {start} where the one before ends at {end}"
        end = start + int(entry.attrib["d"]) * (int(entry.get("r", "0")) + 1)
