import { useEffect, useRef, useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { clock, seconds, spoken } from "../lib/time";
import { Icon, type IconName } from "../ui/icon";
import { codecLabel, type Engine, type Quality } from "./engine";
import { toggleFullscreen } from "./player";
import { chapterAt, extraUrl, languageName, tileAt } from "./extras";
import { canPip, RATES, togglePip } from "./shortcuts";

interface ControlsProps {
  readonly engine: Engine;
  readonly title: Title;
  readonly frame: { current: HTMLDivElement | null };
  readonly onHelp: () => void;
  readonly onLeave: () => void;
}

export function Controls({ engine, title, frame, onHelp, onLeave }: ControlsProps) {
  const playing = !engine.paused.value;
  const fullscreen = useFullscreen();
  return (
    <>
      {engine.waiting.value && <Waiting engine={engine} />}
      <div class="controls" role="group" aria-label="Playback">
        <div class="controls-top">
          <button type="button" class="control" aria-label="Stop and go back to the film" onClick={onLeave}>
            <Icon name="close" />
          </button>
          <span class="controls-title" dir="auto">
            {title.displayName}
          </span>
        </div>
        <div class="controls-bottom">
          <Scrubber engine={engine} />
          <div class="controls-row">
            <Control icon={playing ? "pause" : "play"} label={playing ? "Pause" : "Play"} onClick={engine.toggle} />
            <Control icon="back10" label="10 seconds back" onClick={() => engine.skip(-10)} />
            <Control icon="forward10" label="10 seconds on" onClick={() => engine.skip(10)} />
            <Volume engine={engine} />
            <Clock engine={engine} />
            <span class="spring" />
            <Settings engine={engine} />
            {canPip() && <Control icon="pip" label="Picture in picture" onClick={() => void togglePip(engine.video)} />}
            <Control icon="help" label="Keyboard shortcuts" wideOnly onClick={onHelp} />
            <Control
              icon={fullscreen ? "shrink" : "fullscreen"}
              label={fullscreen ? "Leave full screen" : "Full screen"}
              onClick={() => toggleFullscreen(frame.current)}
            />
          </div>
        </div>
      </div>
    </>
  );
}

function Waiting({ engine }: { engine: Engine }) {
  const forEncoder = isGrowing(engine) && engine.timeS.value > engine.readyS.value - 1;
  return (
    <>
      <span class="spinner large" role="status" aria-label={forEncoder ? "Waiting for the encoder" : "Buffering"} />
      {forEncoder && (
        <p class="waiting" aria-hidden="true">
          Waiting for the encoder
        </p>
      )}
    </>
  );
}

const isGrowing = (engine: Engine): boolean => engine.readyS.value < engine.durationS.value - 0.5;

function Control({ icon, label, onClick, wideOnly }: { icon: IconName; label: string; onClick: () => void; wideOnly?: boolean }) {
  return (
    <button type="button" class={wideOnly ? "control wide-only" : "control"} aria-label={label} title={label} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

/** The film as a line: what is buffered, what is ready, highlights, and where it stands. */
function Scrubber({ engine }: { engine: Engine }) {
  const [drag, setDrag] = useState<number | undefined>(undefined);
  const [hover, setHover] = useState<number | undefined>(undefined);
  const chapters = engine.playback.choice.extras?.chapters ?? [];
  const total = engine.durationS.value || 1;
  const at = drag ?? engine.timeS.value;
  const percent = (s: number) => `${Math.max(0, Math.min(100, (s / total) * 100))}%`;
  const seek = (to: number) => {
    setDrag(undefined);
    engine.seek(to);
  };
  return (
    <div class="scrubber" onPointerMove={(event) => setHover(momentUnder(event, total))} onPointerLeave={() => setHover(undefined)}>
      <div class="scrubber-track" aria-hidden="true">
        {isGrowing(engine) && <span class="scrubber-ready" style={{ width: percent(engine.readyS.value) }} />}
        <span class="scrubber-buffered" style={{ width: percent(engine.bufferedS.value) }} />
        <span class="scrubber-played" style={{ width: percent(at) }} />
        {engine.playback.choice.highlights.map((highlight) => {
          const [start, end] = [seconds(highlight.startOffset), seconds(highlight.endOffset)];
          return <span key={start} class="scrubber-highlight" style={{ left: percent(start), width: percent(end - start) }} />;
        })}
        {chapters.slice(1).map((chapter) => (
          <span key={seconds(chapter.startOffset)} class="scrubber-chapter" style={{ left: percent(seconds(chapter.startOffset)) }} />
        ))}
      </div>
      {(drag ?? hover) !== undefined && <Preview engine={engine} timeS={drag ?? hover ?? 0} left={percent(drag ?? hover ?? 0)} />}
      <input
        type="range"
        aria-label="Position in the film"
        aria-valuetext={`${spoken(at)} of ${spoken(total)}`}
        min={0}
        max={total}
        step="any"
        value={at}
        onInput={(event) => setDrag(event.currentTarget.valueAsNumber)}
        onChange={(event) => seek(event.currentTarget.valueAsNumber)}
        onKeyDown={(event) => {
          const step = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60 }[event.key];
          if (step === undefined) return;
          event.preventDefault();
          engine.skip(step);
        }}
      />
    </div>
  );
}

function momentUnder(event: PointerEvent & { currentTarget: HTMLElement }, total: number): number {
  const box = event.currentTarget.getBoundingClientRect();
  return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * total;
}

/** What is at a moment: its picture, its chapter, its time. */
function Preview({ engine, timeS, left }: { engine: Engine; timeS: number; left: string }) {
  const { lease, choice } = engine.playback;
  const board = choice.extras?.storyboard;
  const tile = board && tileAt(board, timeS);
  const chapter = chapterAt(choice.extras, timeS)?.name;
  return (
    <output class="scrubber-time" style={{ "--at": left, "--half": `${(board?.tileWidth ?? 60) / 2}px` }} aria-hidden="true">
      {board && tile && (
        <span
          class="scrubber-tile"
          style={{
            width: `${board.tileWidth}px`,
            height: `${board.tileHeight}px`,
            backgroundImage: `url("${extraUrl(lease.token, `storyboard-${tile.sheet}.jpg`)}")`,
            backgroundPosition: `-${tile.x}px -${tile.y}px`,
          }}
        />
      )}
      {chapter && <span class="scrubber-name">{chapter}</span>}
      {clock(timeS)}
    </output>
  );
}

function Clock({ engine }: { engine: Engine }) {
  return (
    <span class="clock">
      <span class="visually-hidden">Time: </span>
      {clock(engine.timeS.value)} <span class="dim">/ {clock(engine.durationS.value)}</span>
      <ChapterName engine={engine} />
      {isGrowing(engine) && <span class="dim wide-only"> · ready to {clock(engine.readyS.value)}</span>}
    </span>
  );
}

function Volume({ engine }: { engine: Engine }) {
  const silent = engine.muted.value || engine.volume.value === 0;
  const level = silent ? 0 : engine.volume.value;
  return (
    <span class="volume">
      <Control icon={silent ? "muted" : "volume"} label={silent ? "Sound on" : "Sound off"} onClick={engine.toggleMute} />
      <input
        type="range"
        aria-label="Volume"
        aria-valuetext={`${Math.round(level * 100)} percent`}
        min={0}
        max={1}
        step={0.05}
        value={level}
        onInput={(event) => engine.setVolume(event.currentTarget.valueAsNumber)}
      />
    </span>
  );
}

function ChapterName({ engine }: { engine: Engine }) {
  const name = chapterAt(engine.playback.choice.extras, engine.timeS.value)?.name;
  return name ? <span class="dim wide-only"> · {name}</span> : null;
}

/** Picture, sound, text, chapters and speed. */
function Settings({ engine }: { engine: Engine }) {
  const details = useRef<HTMLDetailsElement>(null);
  const summary = useRef<HTMLElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      const box = details.current;
      if (!box?.open || (event.type === "click" && box.contains(event.target as Node))) return;
      if (event instanceof KeyboardEvent && event.key !== "Escape") return;
      box.open = false;
      if (event instanceof KeyboardEvent) summary.current?.focus();
    };
    document.addEventListener("click", close);
    document.addEventListener("keydown", close);
    return () => (document.removeEventListener("click", close), document.removeEventListener("keydown", close));
  }, []);
  return (
    <details class="settings" ref={details}>
      <summary ref={summary} class="control" aria-label="Picture and speed" title="Picture and speed">
        <Icon name="gear" />
      </summary>
      <div class="settings-panel">
        <QualityChoice engine={engine} />
        <SoundChoice engine={engine} />
        <TextChoice engine={engine} />
        <RateChoice engine={engine} />
        <Chapters engine={engine} />
      </div>
    </details>
  );
}

const qualityKey = ({ codec, height }: Quality): string => `${codec}/${height ?? "auto"}`;

function QualityChoice({ engine }: { engine: Engine }) {
  const chosen = qualityKey(engine.quality.value);
  const codecs = engine.qualities();
  const options = codecs.flatMap(({ codec, heights }): { quality: Quality; text: string }[] => {
    const prefix = codecs.length > 1 ? `${codecLabel(codec)}, ` : "";
    const auto = { quality: { codec }, text: `${prefix}automatic` };
    return [...(heights.length > 1 ? [auto] : []), ...heights.map((height) => ({ quality: { codec, height }, text: `${prefix}${height}p` }))];
  });
  return (
    <fieldset>
      <legend>
        Picture <span class="dim">now {engine.height.value}p</span>
      </legend>
      {options.map(({ quality, text }) => (
        <label key={text}>
          <input type="radio" name="quality" checked={qualityKey(quality) === chosen} onChange={() => void engine.setQuality(quality).catch((error: unknown) => (engine.error.value = error))} />
          {text}
        </label>
      ))}
    </fieldset>
  );
}

function SoundChoice({ engine }: { engine: Engine }) {
  const languages = engine.languages.value;
  if (languages.length < 2) return null;
  return (
    <fieldset>
      <legend>Sound</legend>
      {languages.map((language) => (
        <label key={language}>
          <input type="radio" name="language" checked={engine.language.value === language} onChange={() => engine.setLanguage(language)} />
          {languageName(language)}
        </label>
      ))}
    </fieldset>
  );
}

function TextChoice({ engine }: { engine: Engine }) {
  const tracks = engine.playback.choice.extras?.textTracks ?? [];
  if (!tracks.length) return null;
  const options = [{ id: "", text: "Off" }, ...tracks.map((track) => ({ id: track.trackId, text: track.label || languageName(track.language) }))];
  return (
    <fieldset>
      <legend>Subtitles</legend>
      {options.map(({ id, text }) => (
        <label key={id}>
          <input type="radio" name="text" checked={engine.text.value === id} onChange={() => engine.setText(id)} />
          {text}
        </label>
      ))}
    </fieldset>
  );
}

function Chapters({ engine }: { engine: Engine }) {
  const chapters = engine.playback.choice.extras?.chapters ?? [];
  if (!chapters.length) return null;
  return (
    <div class="chapters" role="group" aria-label="Chapters">
      <strong>Chapters</strong>
      {chapters.map((chapter, at) => (
        <button key={at} type="button" onClick={() => engine.seek(seconds(chapter.startOffset))}>
          <span class="dim">{clock(seconds(chapter.startOffset))}</span> {chapter.name || `Chapter ${at + 1}`}
        </button>
      ))}
    </div>
  );
}

function RateChoice({ engine }: { engine: Engine }) {
  return (
    <fieldset>
      <legend>Speed</legend>
      {RATES.map((rate) => (
        <label key={rate}>
          <input type="radio" name="rate" checked={engine.rate.value === rate} onChange={() => engine.setRate(rate)} />
          {rate === 1 ? "Normal" : `${rate}×`}
        </label>
      ))}
    </fieldset>
  );
}

function useFullscreen(): boolean {
  const [on, setOn] = useState(document.fullscreenElement !== null);
  useEffect(() => {
    const changed = () => setOn(document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", changed);
    return () => document.removeEventListener("fullscreenchange", changed);
  }, []);
  return on;
}
