"""What of a source's pictures decides how they are turned into what every screen shows."""

from __future__ import annotations

from dataclasses import dataclass

#: Code points of ITU-T H.273.
BT709, UNSPECIFIED, BT2020 = 1, 2, 9
PQ, HLG = 16, 18
#: Primaries of BT.2020 and of P3.
WIDE_PRIMARIES = frozenset({9, 11, 12})


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """How pictures are scanned and coloured; colours by ITU-T H.273."""

    interlaced: bool = False
    color_primaries: int = UNSPECIFIED
    color_transfer: int = UNSPECIFIED
    color_matrix: int = UNSPECIFIED

    @property
    def high_dynamic_range(self) -> bool:
        """Whether a screen of standard range cannot show it."""
        return self.color_transfer in (PQ, HLG)

    @property
    def wide_gamut(self) -> bool:
        """Whether it names colours that a usual screen does not have."""
        return self.color_primaries in WIDE_PRIMARIES

    def color_filters(self, width: int, height: int) -> list[str]:
        """FFmpeg's filters that scale to a size and turn colours into BT.709; none where nothing is to do."""
        if not (self.high_dynamic_range or self.wide_gamut):
            return []
        # A source that names only some means the usual companions; said by frames, as the converter finds no
        # way from options alone.
        primaries = self.color_primaries if self.color_primaries != UNSPECIFIED else BT2020
        transfer = self.color_transfer if self.color_transfer != UNSPECIFIED else BT709
        matrix = self.color_matrix if self.color_matrix != UNSPECIFIED else BT2020
        said = f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
        size, end = f"w={width}:h={height}", "p=709:t=709:m=709:r=tv"
        if not self.high_dynamic_range:
            return [said, f"zscale={size}:{end}"]
        return [
            said,
            # Linear light; 100 cd/m² is what a screen of standard range shows as white.
            f"zscale={size}:t=linear:npl=100,format=gbrpf32le",
            "zscale=p=709",
            # Leaves dark and middle tones as they are and rolls highlights off (hable makes all darker).
            "tonemap=mobius:desat=0",
            f"zscale={end},format=yuv420p",
        ]
