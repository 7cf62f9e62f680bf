import { useId, useMemo } from "preact/hooks";
import { coverOf, type Cover } from "../lib/cover";

/** The picture of a title that has none: made from its name. Decoration; the title stands beside it in words. */
export function CoverArt({ name, displayName }: { name: string; displayName: string }) {
  const id = useId();
  const cover = useMemo(() => coverOf(name, displayName), [name, displayName]);
  const { hue, hue2, initials, dice } = cover;
  return (
    <svg class="cover" viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice" aria-hidden="true" focusable="false">
      <defs>
        <linearGradient id={`${id}a`} x1="0" y1="0" x2="1" y2="1">
          <stop offset="0" stop-color={`hsl(${hue} 45% 30%)`} />
          <stop offset="1" stop-color={`hsl(${hue2} 55% 13%)`} />
        </linearGradient>
        <radialGradient id={`${id}b`} cx={0.15 + (dice[0] ?? 0) * 0.7} cy={(dice[1] ?? 0) * 0.5} r="0.8">
          <stop offset="0" stop-color={`hsl(${(hue + 345) % 360} 75% 62%)`} stop-opacity="0.75" />
          <stop offset="1" stop-color={`hsl(${hue} 60% 40%)`} stop-opacity="0" />
        </radialGradient>
        <linearGradient id={`${id}c`} x1="0" y1="0" x2="0" y2="1">
          <stop offset="0.35" stop-color="#000" stop-opacity="0" />
          <stop offset="1" stop-color="#000" stop-opacity="0.45" />
        </linearGradient>
      </defs>
      <rect width="320" height="180" fill={`url(#${id}a)`} />
      <rect width="320" height="180" fill={`url(#${id}b)`} />
      <Motif cover={cover} />
      <rect width="320" height="180" fill={`url(#${id}c)`} />
      <text class="initials" x="18" y="160" font-size={initials.length > 1 ? 68 : 80} font-weight="800" fill="#fff" fill-opacity="0.92">
        {initials}
      </text>
    </svg>
  );
}

function Motif({ cover: { motif, dice, hue } }: { cover: Cover }) {
  const at = (index: number) => dice[index] ?? 0.5;
  const light = `hsl(${(hue + 30) % 360} 90% 84%)`;
  if (motif === "arcs") {
    const [x, y] = [160 + at(2) * 160, 30 + at(3) * 120];
    return (
      <g fill="none" stroke={light} stroke-opacity="0.28">
        {[26, 48, 72, 98, 126].map((r, i) => (
          <circle key={r} cx={x} cy={y} r={r} stroke-width={2 + at(4 + i) * 9} />
        ))}
      </g>
    );
  }
  if (motif === "sun") {
    const [x, y] = [180 + at(2) * 90, 50 + at(3) * 40];
    return (
      <g>
        <circle cx={x} cy={y} r={28 + at(4) * 20} fill={light} fill-opacity="0.6" />
        {[0, 1, 2, 3].map((i) => (
          <rect key={i} x="0" y={112 + i * 17} width="320" height={3 + i * 2.5} fill={light} fill-opacity={0.22 - i * 0.04} />
        ))}
      </g>
    );
  }
  if (motif === "bars") {
    return (
      <g transform={`rotate(${-28 + at(2) * 56} 160 90)`} fill={light}>
        {[0, 1, 2, 3, 4, 5].map((i) => (
          <rect key={i} x={70 + i * 44} y="-90" width={5 + at(3 + i) * 24} height="360" fill-opacity={0.06 + at(4 + i) * 0.2} />
        ))}
      </g>
    );
  }
  if (motif === "dots") {
    return (
      <g fill={light}>
        {Array.from({ length: 60 }, (_, i) => {
          const [column, row] = [i % 10, Math.floor(i / 10)];
          const far = Math.hypot(column / 9 - at(2), row / 5 - at(3));
          return <circle key={i} cx={136 + column * 20} cy={16 + row * 22} r={Math.max(1, 8 - far * 9)} fill-opacity="0.32" />;
        })}
      </g>
    );
  }
  const ridge = (base: number, from: number) =>
    `M0 180 L0 ${base} ${[1, 2, 3, 4, 5].map((i) => `L${i * 64} ${base - 46 + at((from + i) % 12) * 70}`).join(" ")} L320 180 Z`;
  return (
    <g fill={light}>
      <circle cx={210 + at(2) * 80} cy={36 + at(3) * 20} r="15" fill-opacity="0.65" />
      <path d={ridge(104, 3)} fill-opacity="0.14" />
      <path d={ridge(136, 6)} fill-opacity="0.2" />
    </g>
  );
}
