import { useEffect, useRef, useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { reasonOf, sentenceOf } from "../api/errors";
import { Icon } from "../ui/icon";
import { Art } from "../ui/art";
import { Controls } from "./controls";
import { Engine } from "./engine";
import { extraUrl, languageName } from "./extras";
import { NextEpisode } from "./next";
import { Devices } from "./devices";
import { Playback } from "./playback";
import { ShortcutHelp, useShortcuts } from "./shortcuts";

export interface PlayerProps {
  readonly title: Title;
  readonly profile: string;
  /** Where to begin; undefined: where this profile last stopped. */
  readonly fromS: number | undefined;
  /** Another episode, from its beginning or where it stopped. */
  readonly onNext: (title: string) => void;
  readonly onLeave: () => void;
}

/** Controls go away after so long without a movement while it plays. */
const IDLE_MS = 2800;

interface Failure {
  readonly error: unknown;
  /** Where to go on. */
  readonly atS: number | undefined;
}

export function Player({ title, profile, fromS, onNext, onLeave }: PlayerProps) {
  const video = useRef<HTMLVideoElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [engine, setEngine] = useState<Engine | undefined>(undefined);
  const [failure, setFailure] = useState<Failure | undefined>(undefined);
  const [from, setFrom] = useState<{ atS: number | undefined }>({ atS: fromS });
  const [help, setHelp] = useState(false);
  const idle = useIdle(frame, engine);

  useEffect(() => {
    let live: Engine | undefined;
    let gone = false;
    const fail = (error: unknown) => {
      setFailure({ error, atS: live?.timeS.value ?? from.atS });
      setEngine(undefined);
      void live?.close();
      live = undefined;
    };
    const start = async () => {
      const playback = await Playback.start(title.name, profile);
      if (gone || !video.current) return playback.end(from.atS ?? playback.resumeS);
      live = new Engine(video.current, playback);
      playback.onLost = fail;
      live.error.subscribe((error) => error && fail(error));
      setEngine(live);
      await live.start(from.atS ?? playback.resumeS);
    };
    start().catch((error: unknown) => !gone && fail(error));
    return () => {
      gone = true;
      void live?.close();
    };
  }, [title.name, profile, from]);

  useShortcuts(engine, frame, () => setHelp(true));
  const again = () => {
    setFailure(undefined);
    setFrom({ atS: failure?.atS });
  };
  return (
    <div ref={frame} class={idle ? "player idle" : "player"} role="region" aria-label={`Player: ${title.displayName}`} tabIndex={-1}>
      <video ref={video} playsInline onClick={() => engine?.toggle()} onDblClick={() => toggleFullscreen(frame.current)} aria-label={title.displayName}>
        {engine?.playback.choice.extras?.textTracks.map((track) => (
          <track key={track.trackId} id={track.trackId} kind="subtitles" srclang={track.language} label={track.label || languageName(track.language)} src={extraUrl(engine.playback.lease.token, `${track.trackId}.vtt`)} />
        ))}
      </video>
      {!engine && !failure && <span class="spinner large" role="status" aria-label="Starting" />}
      {engine && <Controls engine={engine} title={title} frame={frame} onHelp={() => setHelp(true)} onLeave={onLeave} />}
      {engine?.ended.value && <NextEpisode title={title} onNext={onNext} />}
      {failure && <FailureView failure={failure} title={title} onAgain={again} onLeave={onLeave} />}
      {help && <ShortcutHelp onClose={() => setHelp(false)} />}
    </div>
  );
}

/** Why nothing plays, and the way on. */
function FailureView({ failure, title, onAgain, onLeave }: { failure: Failure; title: Title; onAgain: () => void; onLeave: () => void }) {
  const reason = reasonOf(failure.error);
  const lost = reason.startsWith("LEASE");
  const unpaid = ["NOT_ENTITLED", "NO_SUBSCRIPTION", "INVOICE_UNPAID"].includes(reason);
  return (
    <div class="player-failure">
      <Art name={title.name} displayName={title.displayName} artwork={title.artwork} large />
      <div class="player-failure-box" role="alert">
        <Icon name="alert" size={36} />
        <p>{isShaka(failure.error) ? "The film could not be played here. Try again, or choose another device." : sentenceOf(failure.error)}</p>
        {reason === "CONCURRENT_STREAM_LIMIT" && <Devices />}
        <div class="buttons">
          {unpaid ? (
            <a class="button primary" href="#/account">
              See the plans
            </a>
          ) : (
            <button type="button" class="button primary" onClick={onAgain}>
              {lost ? "Continue here" : "Try again"}
            </button>
          )}
          <button type="button" class="button glass" onClick={onLeave}>
            Back to the film
          </button>
        </div>
      </div>
    </div>
  );
}

const isShaka = (error: unknown): boolean => typeof error === "object" && error !== null && "category" in error && "severity" in error;

export function toggleFullscreen(frame: HTMLElement | null): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void frame?.requestFullscreen().catch(() => undefined);
}

/** True while it plays and nobody moves, touches or has the focus on a control. */
function useIdle(frame: { current: HTMLElement | null }, engine: Engine | undefined): boolean {
  const [idle, setIdle] = useState(false);
  useEffect(() => {
    const box = frame.current;
    if (!box || !engine) return;
    let timer: ReturnType<typeof setTimeout>;
    const wake = () => {
      setIdle(false);
      clearTimeout(timer);
      timer = setTimeout(() => {
        const busy = box.querySelector("details[open], .controls :focus-visible");
        if (!engine.video.paused && !busy) setIdle(true);
      }, IDLE_MS);
    };
    const events = ["pointermove", "pointerdown", "keydown", "focusin"] as const;
    for (const event of events) box.addEventListener(event, wake);
    const stop = engine.paused.subscribe(wake);
    return () => {
      clearTimeout(timer);
      stop();
      for (const event of events) box.removeEventListener(event, wake);
    };
  }, [engine]);
  return idle;
}
