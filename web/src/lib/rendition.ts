const CODECS: Readonly<Record<string, string>> = { h264: "H.264", av1: "AV1", aac: "AAC", opus: "Opus" };

/** `h264-720` → `H.264 720p`, `h264-720-2` → `H.264 720p (2)`, `aac-128-eng-0` → `AAC 128 kbit/s, eng`: what a rendition's id tells a person. */
export function renditionLabel(id: string): string {
  const [codec = "", rung = "", more] = id.split("-");
  const name = CODECS[codec] ?? codec;
  if (!/^\d+$/.test(rung)) return id;
  if (codec === "aac" || codec === "opus") return `${name} ${rung} kbit/s${more && more !== "und" ? `, ${more}` : ""}`;
  return `${name} ${rung}p${more ? ` (${more})` : ""}`;
}
