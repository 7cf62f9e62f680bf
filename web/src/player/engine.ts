import { batch, signal } from "@preact/signals";
import { VideoCodec } from "kino-stubs/kino/media/v1/media_pb.js";
import { seconds } from "../lib/time";
import type { Playback } from "./playback";
import { openWire, shaka } from "./scheme";

/** A picture the viewer can ask for; no height: chosen by the connection. */
export interface Quality {
  readonly codec: VideoCodec;
  readonly height?: number;
}

const FAMILY: Readonly<Record<VideoCodec, { video: string; audio: string; label: string }>> = {
  [VideoCodec.UNSPECIFIED]: { video: "", audio: "", label: "" },
  [VideoCodec.H264]: { video: "avc1", audio: "mp4a", label: "H.264" },
  [VideoCodec.AV1]: { video: "av01", audio: "opus", label: "AV1" },
  [VideoCodec.HEVC]: { video: "hvc1", audio: "mp4a", label: "HEVC" },
};

export const codecLabel = (codec: VideoCodec): string => FAMILY[codec].label;

const REPORT_MS = 5000;

/** One playback in one video element: Shaka, what it shows as signals, and the reports to the history. */
export class Engine {
  readonly timeS = signal(0);
  readonly durationS = signal(0);
  readonly bufferedS = signal(0);
  /** End of what can be played now; smaller than the duration while the film is still encoded. */
  readonly readyS = signal(0);
  readonly paused = signal(true);
  readonly waiting = signal(true);
  readonly ended = signal(false);
  readonly rate = signal(1);
  readonly volume = signal(1);
  readonly muted = signal(false);
  readonly quality = signal<Quality>({ codec: VideoCodec.H264 });
  /** Height of the picture shown now. */
  readonly height = signal(0);
  /** Id of the text track shown; empty: none. */
  readonly text = signal("");
  /** Languages of the sound to choose from, and the one heard. */
  readonly languages = signal<readonly string[]>([]);
  readonly language = signal("");
  readonly error = signal<unknown>(undefined);

  #player = new shaka.Player();
  #closeWire: () => void;
  #closers: (() => void)[] = [];
  #seekTo: number | undefined;
  #wantedLanguage = "";

  constructor(
    readonly video: HTMLVideoElement,
    readonly playback: Playback,
  ) {
    this.#closeWire = openWire(playback.id, playback);
    this.durationS.value = seconds(playback.choice.duration);
    // H.264 first: every browser decodes it, and it has the whole ladder.
    const codecs = this.qualities();
    const first = codecs.find(({ codec }) => codec === VideoCodec.H264) ?? codecs[0];
    const only = first?.heights.length === 1 ? first.heights[0] : undefined;
    if (first) this.quality.value = { codec: first.codec, ...(only === undefined ? {} : { height: only }) };
    this.#listen();
  }

  /** Loads at a moment of the film and plays. Resolves when the first frame can be shown. */
  async start(offsetS: number): Promise<void> {
    await this.#player.attach(this.video);
    await this.#load(offsetS, true);
  }

  play = (): void => void this.video.play().catch(() => undefined);
  pause = (): void => this.video.pause();
  toggle = (): void => (this.video.paused ? this.play() : this.pause());

  /** Goes to a moment, at most to the end of what is ready. */
  seek(timeS: number): void {
    const end = this.readyS.value || this.durationS.value;
    this.video.currentTime = Math.max(0, Math.min(timeS, end));
    this.timeS.value = this.video.currentTime;
  }

  skip = (deltaS: number): void => this.seek(this.video.currentTime + deltaS);

  setRate(rate: number): void {
    this.rate.value = rate;
    this.#applyRate();
  }

  setVolume(volume: number): void {
    this.video.volume = Math.max(0, Math.min(1, volume));
    this.video.muted = this.video.volume === 0;
  }

  toggleMute = (): void => {
    this.video.muted = !this.video.muted;
    if (!this.video.muted && this.video.volume === 0) this.video.volume = 0.5;
  };

  /** Heights to choose from, by codec, largest first. */
  qualities(): { codec: VideoCodec; heights: number[] }[] {
    const heights = new Map<VideoCodec, Set<number>>();
    for (const rendition of this.playback.choice.renditions) {
      if (rendition.kind.case !== "video") continue;
      const { codec, height } = rendition.kind.value;
      heights.set(codec, (heights.get(codec) ?? new Set()).add(height));
    }
    return [...heights].map(([codec, set]) => ({ codec, heights: [...set].sort((a, b) => b - a) }));
  }

  /** Shows a text track, or none. */
  setText(trackId: string): void {
    this.text.value = trackId;
    for (const element of this.video.querySelectorAll("track")) element.track.mode = element.id === trackId ? "showing" : "disabled";
  }

  /** Sound in another language, in the same codec where there is one. It stays through a change of codec. */
  setLanguage(language: string): void {
    this.#wantedLanguage = language;
    const spoken = this.#player.getAudioTracks().filter((track) => track.language === language);
    const codec = FAMILY[this.quality.value.codec].audio;
    const track = spoken.find((one) => one.codecs?.startsWith(codec)) ?? spoken[0];
    if (track) this.#player.selectAudioTrack(track);
    this.#refresh();
  }

  /** Another picture. Within a codec it changes with the next segments; another codec goes on at the same frame. */
  async setQuality(quality: Quality): Promise<void> {
    const sameCodec = quality.codec === this.quality.value.codec;
    this.quality.value = quality;
    if (sameCodec) this.#applyHeight(true);
    else await this.#load(this.video.currentTime, !this.video.paused);
  }

  /** Reports, frees the lease and the decoder. */
  async close(): Promise<void> {
    for (const close of this.#closers) close();
    this.playback.end(this.#positionS);
    await this.#player.destroy();
    this.#closeWire();
  }

  async #load(offsetS: number, play: boolean): Promise<void> {
    const family = FAMILY[this.quality.value.codec];
    this.#player.configure({
      preferredVideo: [{ codec: family.video }],
      preferredAudio: [{ codec: family.audio, ...(this.#wantedLanguage ? { language: this.#wantedLanguage } : {}) }],
      // Segments retry by themselves from the byte they lack; what is left to Shaka is the manifest.
      streaming: { bufferingGoal: 30, bufferBehind: 30, rebufferingGoal: 0.5, retryParameters: { maxAttempts: 2, timeout: 0 } },
      manifest: {
        retryParameters: { maxAttempts: 5, timeout: 0 },
        // A film that is still encoded is not live: it starts as soon as a frame is there, and its end is not held back.
        defaultPresentationDelay: 0.01,
        dash: { ignoreMinBufferTime: true },
      },
      abr: { enabled: this.quality.value.height === undefined, defaultBandwidthEstimate: 8e6 },
    });
    const url = `kino://${this.playback.id}/manifests/manifest.mpd`;
    this.#seekTo = offsetS;
    this.waiting.value = true;
    try {
      await this.#player.load(url, offsetS, "application/dash+xml");
      this.#seekTo = undefined;
      this.#applyHeight(false);
      this.#applyRate();
      this.#refresh();
      if (play) this.play();
    } catch (error) {
      if (!isInterrupted(error)) throw error;
    }
  }

  /** Through Shaka, which stops the element's own clock while it buffers. */
  #applyRate(): void {
    this.#player.trickPlay(this.rate.value, /* useTrickPlayTrack= */ false);
  }

  #applyHeight(clearBuffer: boolean): void {
    const wanted = this.quality.value.height;
    this.#player.configure({ abr: { enabled: wanted === undefined } });
    if (wanted === undefined) return;
    const tracks = this.#player.getVideoTracks().filter((track) => track.height === wanted);
    // Of two of one size the better.
    const [track] = tracks.sort((a, b) => b.bandwidth - a.bandwidth);
    if (track) this.#player.selectVideoTrack(track, clearBuffer, 2);
  }

  #listen(): void {
    const { video } = this;
    const on = (event: string, run: () => void) => {
      video.addEventListener(event, run);
      this.#closers.push(() => video.removeEventListener(event, run));
    };
    const sight = () => this.#sight();
    for (const event of ["timeupdate", "progress", "durationchange", "resize", "playing", "canplay"]) on(event, sight);
    for (const event of ["play", "waiting", "volumechange", "loadedmetadata"]) on(event, () => this.#refresh());
    for (const event of ["pause", "seeking", "waiting", "ended", "emptied"]) on(event, () => this.#stopped());
    for (const event of ["pause", "seeked", "ended"]) on(event, () => this.#report());
    const timer = setInterval(() => !video.paused && this.#report(), REPORT_MS);
    // A page kept for "back" goes on later; one that is thrown away gives its stream back.
    const hidden = (event: PageTransitionEvent) =>
      event.persisted ? this.playback.leaving(this.#positionS) : this.playback.end(this.#positionS);
    addEventListener("pagehide", hidden);
    this.#closers.push(() => clearInterval(timer), () => removeEventListener("pagehide", hidden));
    this.#player.addEventListener("error", (event) => {
      const detail = (event as unknown as { detail: shaka.util.Error }).detail;
      if (detail.severity === shaka.util.Error.Severity.CRITICAL) this.error.value = detail;
    });
    for (const event of ["adaptation", "variantchanged", "manifestupdated", "buffering"]) {
      this.#player.addEventListener(event, () => this.#refresh());
    }
  }

  /** The clock moved: what lies between two sightings was played, if it moved no faster than it can. */
  #sight(): void {
    const { video } = this;
    if (!video.paused && !video.seeking && video.readyState > 2) {
      this.playback.progress.tracker.playing(video.currentTime, video.playbackRate, performance.now() / 1000);
    }
    this.#refresh();
  }

  #stopped(): void {
    this.playback.progress.tracker.stopped();
    this.#refresh();
  }

  /** While it loads, the element stands at zero, which is nobody's position. */
  get #positionS(): number {
    return this.#seekTo ?? this.video.currentTime;
  }

  #report(): void {
    void this.playback.progress.report(this.#positionS);
  }

  #refresh(): void {
    const { video } = this;
    // A live manifest offers what is encoded; a static one is the whole film.
    const ready = this.#player.isLive() ? this.playback.readyS : this.#player.seekRange().end;
    batch(() => {
      this.timeS.value = this.#positionS;
      this.paused.value = video.paused;
      this.ended.value = video.ended;
      this.waiting.value = !video.paused && (video.readyState < 3 || this.#player.isBuffering());
      this.volume.value = video.volume;
      this.muted.value = video.muted;
      this.height.value = video.videoHeight;
      const sounds = this.#player.getAudioTracks();
      const languages = [...new Set(sounds.map((track) => track.language))];
      // While another codec loads there are none: what was offered stays.
      if (languages.length && languages.join() !== this.languages.value.join()) this.languages.value = languages;
      this.language.value = sounds.find((track) => track.active)?.language ?? this.language.value;
      if (ready > 0) this.readyS.value = ready;
      // A live manifest has no end of its own; the title's length is known from its first reading.
      if (!this.#player.isLive() && Number.isFinite(video.duration) && video.duration > 0) this.durationS.value = video.duration;
      else if (!this.durationS.value) this.durationS.value = ready;
      this.bufferedS.value = bufferedEnd(video);
    });
  }
}

function bufferedEnd(video: HTMLVideoElement): number {
  for (let i = 0; i < video.buffered.length; i++) {
    if (video.buffered.start(i) <= video.currentTime + 0.1 && video.currentTime <= video.buffered.end(i)) return video.buffered.end(i);
  }
  return video.currentTime;
}

const isInterrupted = (error: unknown): boolean =>
  error instanceof shaka.util.Error && [shaka.util.Error.Code.LOAD_INTERRUPTED, shaka.util.Error.Code.OPERATION_ABORTED].includes(error.code);
