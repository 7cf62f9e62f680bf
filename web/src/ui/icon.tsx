/** Line icons on a grid of 24; drawn by hand for this page. */
const PATHS = {
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8.5 5.5v13M15.5 5.5v13",
  back10: "M12 5a7.5 7.5 0 1 1-7.3 5.8M12 5 8.8 2.4M12 5 8.8 7.6",
  forward10: "M12 5a7.5 7.5 0 1 0 7.3 5.8M12 5l3.2-2.6M12 5l3.2 2.6",
  volume: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  muted: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5",
  fullscreen: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  shrink: "M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5",
  pip: "M4 6h16v12H4zM12.5 12h5.5v4h-5.5z",
  gear: "M5 7h8M17 7h2M5 12h2M11 12h8M5 17h8M17 17h2M15 5v4M9 10v4M15 15v4",
  help: "M9 9.2a3 3 0 1 1 4.6 2.5c-1 .7-1.6 1.2-1.6 2.6M12 17.8v.2",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5 20 20",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  moon: "M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7z",
  upload: "M12 16V4.5M7.5 9 12 4.5 16.5 9M4.5 15.5v4h15v-4",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20c.6-3.6 3.6-5.5 7.5-5.5s6.9 1.9 7.5 5.5",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.5 10 17.5 19.5 7",
  alert: "M12 4 2.8 19.5h18.4zM12 10v4.5M12 17v.2",
  clock: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 7.5V12l3 2",
  chevron: "M9 5l7 7-7 7",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.7h4M4 14.3h4M16 9.7h4M16 14.3h4",
  spark: "M12 3.5l2 6.5 6.5 2-6.5 2-2 6.5-2-6.5-6.5-2 6.5-2z",
  out: "M14 4.5H5v15h9M10.5 12H21M17.5 8.5 21 12l-3.5 3.5",
  plus: "M12 5v14M5 12h14",
  up: "M6 14.5 12 8.5l6 6",
  down: "M6 9.5l6 6 6-6",
  next: "M6 5.5v13L15 12zM18.5 5.5v13",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 24 }: { name: IconName; size?: number }) {
  const solid = name === "play";
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill={solid ? "currentColor" : "none"} stroke="currentColor" stroke-width={name === "pause" ? 3 : 1.8} stroke-linecap="round" stroke-linejoin="round" />
      {(name === "back10" || name === "forward10") && (
        <text x="12" y="15.8" text-anchor="middle" font-size="7.5" font-weight="700" fill="currentColor">
          10
        </text>
      )}
    </svg>
  );
}
