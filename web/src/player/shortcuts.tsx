import { useEffect } from "preact/hooks";
import { announce, Dialog } from "../ui/basics";
import { clock, spoken } from "../lib/time";
import type { Engine } from "./engine";
import { languageName } from "./extras";
import { toggleFullscreen } from "./player";

export const RATES = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2] as const;
const SKIP_S = 10;

/** The speed next to `rate`, slower or faster. */
export function nextRate(rate: number, direction: 1 | -1): number {
  const at = RATES.reduce((best, one, i) => (Math.abs(one - rate) < Math.abs(RATES[best]! - rate) ? i : best), 0);
  return RATES[Math.max(0, Math.min(RATES.length - 1, at + direction))]!;
}

type Act = (engine: Engine, frame: HTMLElement | null) => void;

const skip = (deltaS: number): Act => (engine) => {
  engine.skip(deltaS);
  announce(clock(engine.timeS.value));
};
const speed = (direction: 1 | -1): Act => (engine) => {
  engine.setRate(nextRate(engine.rate.value, direction));
  announce(`Speed ${engine.rate.value}`);
};
const louder = (delta: number): Act => (engine) => {
  engine.setVolume(engine.video.volume + delta);
  announce(`Volume ${Math.round(engine.video.volume * 100)} percent`);
};

const KEYS: Readonly<Record<string, Act>> = {
  " ": (engine) => engine.toggle(),
  k: (engine) => engine.toggle(),
  j: skip(-SKIP_S),
  l: skip(SKIP_S),
  ArrowLeft: skip(-SKIP_S),
  ArrowRight: skip(SKIP_S),
  ArrowUp: louder(0.05),
  ArrowDown: louder(-0.05),
  m: (engine) => engine.toggleMute(),
  f: (_, frame) => toggleFullscreen(frame),
  c: (engine) => {
    const tracks = engine.playback.choice.extras?.textTracks ?? [];
    const next = tracks[tracks.findIndex((track) => track.trackId === engine.text.value) + 1];
    engine.setText(next?.trackId ?? "");
    announce(next ? `Subtitles ${next.label || languageName(next.language)}` : "No subtitles");
  },
  p: (engine) => void togglePip(engine.video),
  "<": speed(-1),
  ">": speed(1),
  Home: (engine) => engine.seek(0),
  End: (engine) => engine.seek(engine.readyS.value),
  t: (engine) => announce(`${spoken(engine.timeS.value)} of ${spoken(engine.durationS.value)}`),
};

const HELP: readonly (readonly [keys: string, what: string])[] = [
  ["Space or K", "Play or pause"],
  ["← or J", "10 seconds back"],
  ["→ or L", "10 seconds on"],
  ["0 … 9", "To 0 % … 90 % of the film"],
  ["Home, End", "To the beginning, to the end"],
  ["↑ ↓", "Volume"],
  ["M", "Sound on or off"],
  ["< >", "Slower, faster"],
  ["C", "Next subtitles, or none"],
  ["F", "Full screen"],
  ["P", "Picture in picture"],
  ["T", "Say the time"],
  ["?", "This help"],
];

/** Keys for the whole page while a film plays, except where keys mean something else. */
export function useShortcuts(engine: Engine | undefined, frame: { current: HTMLElement | null }, onHelp: () => void): void {
  useEffect(() => {
    if (!engine) return;
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || keepsKey(event)) return;
      const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : undefined;
      const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (event.key === "?") onHelp();
      else if (digit !== undefined) engine.seek((engine.durationS.value * digit) / 10);
      else if (act) act(engine, frame.current);
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [engine]);
}

/** Text fields, open menus and dialogs keep all keys; a slider its arrows; a button or link Space and Enter. */
function keepsKey(event: KeyboardEvent): boolean {
  const target = event.target instanceof Element ? event.target : undefined;
  if (!target) return false;
  if (target.closest("dialog, textarea, select, input:not([type=range]), [role=menu]")) return true;
  if (target.closest("input[type=range]")) return /^(Arrow|Home|End|Page)/.test(event.key);
  return Boolean(target.closest("button, a, summary")) && event.key === " ";
}

export const canPip = (): boolean => document.pictureInPictureEnabled === true;

export async function togglePip(video: HTMLVideoElement): Promise<void> {
  try {
    if (document.pictureInPictureElement) await document.exitPictureInPicture();
    else if (canPip()) await video.requestPictureInPicture();
  } catch {
    announce("Picture in picture is not possible here");
  }
}

export const ShortcutHelp = ({ onClose }: { onClose: () => void }) => (
  <Dialog title="Keyboard shortcuts" onClose={onClose}>
    <table class="keys">
      <thead class="visually-hidden">
        <tr>
          <th scope="col">Key</th>
          <th scope="col">What it does</th>
        </tr>
      </thead>
      <tbody>
        {HELP.map(([keys, what]) => (
          <tr key={keys}>
            <th scope="row">
              <kbd>{keys}</kbd>
            </th>
            <td>{what}</td>
          </tr>
        ))}
      </tbody>
    </table>
  </Dialog>
);
