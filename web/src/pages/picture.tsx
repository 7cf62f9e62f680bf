import { useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { useAct } from "../lib/load";
import { clock, duration, parseClock, seconds } from "../lib/time";
import { announce, Dialog, ErrorNote, Field, Select } from "../ui/basics";

/** The contract takes so much. */
const MOST_BYTES = 6 << 20;
const TIMEOUT_MS = 60_000;

interface PictureProps {
  /** `titles/…` or `series/…`. */
  readonly name: string;
  /** Whether it has a picture. */
  readonly has: boolean;
  /** Of which a frame may be taken. */
  readonly titles: readonly Title[];
  readonly onClose: () => void;
  readonly onDone: () => void;
}

/** The picture of a title or series: a file, or a frame. */
export function PictureDialog({ name, has, titles, onClose, onDone }: PictureProps) {
  const { busy, error, run } = useAct();
  const act = (what: () => Promise<unknown>) =>
    void run(what).then((done) => {
      if (!done) return;
      announce("Saved");
      onDone();
    });
  const send = (file: File | undefined) => {
    if (!file) return;
    act(async () => {
      if (file.size > MOST_BYTES) throw new Error("The picture is larger than 6 MB. Send a smaller one.");
      await api.catalog.setArtwork({ name, from: { case: "picture", value: new Uint8Array(await file.arrayBuffer()) } }, { timeoutMs: TIMEOUT_MS });
    });
  };
  return (
    <Dialog title="Picture" onClose={onClose}>
      <div class="field">
        <label for="picture">A picture of yours</label>
        <input id="picture" type="file" accept="image/jpeg,image/png,image/webp" disabled={busy} onChange={(event) => send(event.currentTarget.files?.[0])} />
        <p class="hint">JPEG, PNG or WebP, at most 6 MB. Wide ones look best.</p>
      </div>
      {titles.length > 0 && <FrameForm name={name} titles={titles} busy={busy} act={act} />}
      <ErrorNote error={error} />
      {has && (
        <button type="button" class="button danger" disabled={busy} onClick={() => act(() => api.catalog.clearArtwork({ name }))}>
          Remove the picture
        </button>
      )}
    </Dialog>
  );
}

interface FrameProps {
  readonly name: string;
  readonly titles: readonly Title[];
  readonly busy: boolean;
  readonly act: (what: () => Promise<unknown>) => void;
}

function FrameForm({ name, titles, busy, act }: FrameProps) {
  const [title, setTitle] = useState(titles[0]?.name ?? "");
  const total = seconds(titles.find((one) => one.name === title)?.duration);
  const [moment, setMoment] = useState(clock(total / 3));
  const take = (event: Event) => {
    event.preventDefault();
    act(() => {
      const offset = duration(parseClock(moment));
      return api.catalog.setArtwork({ name, from: { case: "frame", value: { title, offset } } }, { timeoutMs: TIMEOUT_MS });
    });
  };
  return (
    <form onSubmit={take}>
      <p class="or">or</p>
      {titles.length > 1 && <Select label="A frame of" value={title} options={titles.map((one) => [one.name, one.displayName] as const)} onPick={setTitle} />}
      <Field label="The frame at" hint={`Minutes and seconds, up to ${clock(total)}`} pattern="(\d+:)?(\d+:)?\d+([.]\d+)?" required value={moment} onText={setMoment} />
      <button class="button" disabled={busy}>
        Take this frame
      </button>
    </form>
  );
}
