import { useEffect, useRef, useState } from "preact/hooks";
import { Upload_State, type Upload } from "kino-stubs/kino/ingest/v1/resources_pb.js";
import { api } from "../api/clients";
import { sentenceOfStatus } from "../api/errors";
import { useJob } from "../lib/job";
import { parseSpans } from "../lib/highlights";
import { useAct, useLoad, usePages } from "../lib/load";
import { bytes, dateTime, length } from "../lib/time";
import { idOf } from "../state";
import { announce, Badge, ErrorNote, Field, Heading, Loading, Progress } from "../ui/basics";
import { Icon } from "../ui/icon";
import { JobProgress } from "../ui/job_progress";
import { titleText, type TitleText } from "../lib/title_text";
import { TitleFields } from "../ui/title_fields";
import { Uploader, findBegun } from "../upload/uploader";

export function UploadPage() {
  const [file, setFile] = useState<File | undefined>(undefined);
  const [uploader, setUploader] = useState<Uploader | undefined>(undefined);
  const [round, setRound] = useState(0);
  const again = () => {
    setFile(undefined);
    setUploader(undefined);
    setRound((n) => n + 1);
  };
  return (
    <div class="narrow">
      <Heading text="Upload a film" />
      {uploader ? (
        <Sending key={round} uploader={uploader} onAgain={again} />
      ) : file ? (
        <Details file={file} onStart={setUploader} onOther={() => setFile(undefined)} />
      ) : (
        <DropZone onFile={setFile} />
      )}
      <MyUploads key={`list${round}${uploader ? "s" : ""}`} />
    </div>
  );
}

export function DropZone({ onFile }: { onFile: (file: File) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const take = (files: FileList | null | undefined) => {
    const file = files?.[0];
    if (file) onFile(file);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer?.files);
  };
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <Icon name="upload" size={44} />
      <p>
        <strong>Drop a film here</strong>
        <br />
        MP4, MOV, MKV, WebM, MPEG-TS or AVI
      </p>
      <input ref={input} id="film" class="visually-hidden" type="file" accept="video/*,.mkv,.ts,.avi" onChange={(event) => take(event.currentTarget.files)} />
      <label for="film" class="button primary">
        Choose a file
      </label>
    </div>
  );
}

/** `holiday_2024-final.mp4` → `holiday 2024 final`. */
export const titleFromFile = (name: string): string =>
  name
    .replace(/\.[^.]{1,5}$/, "")
    .replace(/[_.-]+/g, " ")
    .trim()
    .slice(0, 500);

function Details({ file, onStart, onOther }: { file: File; onStart: (uploader: Uploader) => void; onOther: () => void }) {
  const { value: begun, error, loading, reload } = useLoad((signal) => findBegun(file, signal), [file.name, file.size, file.lastModified]);
  const [text, setText] = useState<TitleText>({ displayName: titleFromFile(file.name), description: "", releaseYear: "", genres: "" });
  const [spans, setSpans] = useState("");
  const [unpublished, setUnpublished] = useState(false);
  const [wrong, setWrong] = useState<unknown>(undefined);
  const submit = (event: Event) => {
    event.preventDefault();
    try {
      onStart(new Uploader(file, begun ? undefined : { ...titleText(text), unpublished, highlights: parseSpans(spans) }));
    } catch (error) {
      setWrong(error);
    }
  };
  return (
    <form class="panel" onSubmit={submit}>
      <FileLine file={file} />
      <ErrorNote error={error} retry={reload} />
      {begun ? (
        <p class="note">
          <Icon name="clock" size={20} />
          <span>
            The upload of <strong dir="auto">{begun.displayName}</strong> was begun before; it goes on where it stopped.
          </span>
        </p>
      ) : (
        <>
          <TitleFields value={text} onChange={setText} />
          <Field label="Highlights" hint="Passages to encode and show first, such as 1:20-1:35, 10:00-10:20; empty: found by themselves" value={spans} onText={setSpans} />
          <label class="check">
            <input type="checkbox" checked={unpublished} onChange={(event) => setUnpublished(event.currentTarget.checked)} />
            Keep it from viewers until I publish it
          </label>
          <ErrorNote error={wrong} />
        </>
      )}
      <div class="buttons">
        <button class="button primary" disabled={loading || error !== undefined}>{begun ? "Resume upload" : "Upload"}</button>
        <button type="button" class="button" onClick={onOther}>
          Choose another file
        </button>
      </div>
    </form>
  );
}

const FileLine = ({ file }: { file: File }) => (
  <p class="file-line">
    <Icon name="film" size={22} />
    <strong dir="auto">{file.name}</strong>
    <span class="dim">{bytes(file.size)}</span>
  </p>
);

/** A file on its way: sent, checked, then encoded, all on one panel. */
export function Sending({ uploader, onAgain, once = false }: { uploader: Uploader; onAgain: () => void; once?: boolean }) {
  const [upload, setUpload] = useState<Upload | undefined>(undefined);
  const { busy, error, run } = useAct();
  const send = () => void run(async () => setUpload(await uploader.run()));
  useEffect(() => {
    send();
    const ask = (event: BeforeUnloadEvent) => !["done", "refused"].includes(uploader.phase.value) && event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => {
      removeEventListener("beforeunload", ask);
      uploader.pause();
    };
  }, [uploader]);
  const refused = uploader.phase.value === "refused";
  const cancel = () => void run(() => uploader.cancel()).then((done) => done && onAgain());
  return (
    <div class="panel">
      <FileLine file={uploader.file} />
      {upload ? <Encoding upload={upload} onAgain={once ? undefined : onAgain} /> : <Transfer uploader={uploader} busy={busy} />}
      <ErrorNote error={error} />
      {!upload && (
        <div class="buttons">
          {busy && (
            <button type="button" class="button" onClick={() => uploader.pause()}>
              Pause
            </button>
          )}
          {!busy && !refused && (
            <>
              <button type="button" class="button primary" onClick={send}>
                Resume
              </button>
              <button type="button" class="button danger" onClick={cancel}>
                Cancel upload
              </button>
            </>
          )}
          {!busy && error !== undefined && (
            <button type="button" class={refused ? "button primary" : "button"} onClick={onAgain}>
              Choose another file
            </button>
          )}
        </div>
      )}
    </div>
  );
}

const PHASES = { starting: "Starting", sending: "Sending", checking: "Checking the whole file", refused: "Refused", done: "Sent" } as const;

function Transfer({ uploader, busy }: { uploader: Uploader; busy: boolean }) {
  const phase = uploader.phase.value;
  const size = uploader.file.size;
  const received = uploader.receivedBytes.value;
  const left = uploader.secondsLeft.value;
  const stopped = !busy && phase !== "refused";
  const state = stopped ? "Paused" : PHASES[phase];
  useEffect(() => announce(state), [state]);
  return (
    <div class="job">
      <div class="job-head">
        <Badge tone={phase === "refused" ? "bad" : stopped ? "plain" : "busy"}>{state}</Badge>
        <span class="job-percent">{size ? Math.floor((received / size) * 100) : 0} %</span>
      </div>
      <Progress value={size ? received / size : 0} label="Sent" />
      <p class="transfer">
        <span>
          {bytes(received)} of {bytes(size)}
        </span>
        {busy && uploader.bytesPerSecond.value > 0 && <span>{bytes(uploader.bytesPerSecond.value)}/s</span>}
        {busy && phase === "sending" && left !== undefined && <span>{length(Math.max(1, left))} left</span>}
      </p>
    </div>
  );
}

function Encoding({ upload, onAgain }: { upload: Upload; onAgain: (() => void) | undefined }) {
  const { job, error } = useJob(upload.job);
  return (
    <>
      <ErrorNote error={error} />
      {job ? <JobProgress job={job} /> : <Loading what="the job" />}
      <div class="buttons">
        {onAgain && (
          <button type="button" class="button" onClick={onAgain}>
            <Icon name="plus" size={18} /> Upload another film
          </button>
        )}
        <a class="button" href={`#/jobs/${idOf(upload.job)}`}>
          Details
        </a>
      </div>
    </>
  );
}

const UPLOAD_STATES: Readonly<Record<Upload_State, readonly ["good" | "busy" | "bad" | "plain", string]>> = {
  [Upload_State.UNSPECIFIED]: ["plain", "Unknown"],
  [Upload_State.RECEIVING]: ["busy", "Not complete"],
  [Upload_State.COMPLETE]: ["good", "Complete"],
  [Upload_State.CANCELED]: ["plain", "Cancelled"],
  [Upload_State.REJECTED]: ["bad", "Refused"],
};

function MyUploads() {
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.ingest.listUploads({ pageToken, pageSize: 20 }, { signal });
    return { items: answer.uploads, nextPageToken: answer.nextPageToken };
  }, []);
  if (error) return <ErrorNote error={error} retry={reload} />;
  if (!value?.length) return null;
  return (
    <section aria-labelledby="uploads">
      <h2 id="uploads">My uploads</h2>
      <ul class="list">
        {value.map((upload) => (
          <UploadLine key={upload.name} upload={upload} onChange={reload} />
        ))}
      </ul>
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}

function UploadLine({ upload, onChange }: { upload: Upload; onChange: () => void }) {
  const [tone, text] = UPLOAD_STATES[upload.state];
  const { busy, error, run } = useAct();
  const receiving = upload.state === Upload_State.RECEIVING;
  const cancel = () => void run(() => api.ingest.cancelUpload({ name: upload.name })).then((done) => done && onChange());
  return (
    <li>
      <div class="list-main">
        <strong dir="auto">{upload.fileName || "Unnamed file"}</strong>
        <span class="dim">
          {bytes(Number(upload.sizeBytes))} · {dateTime(upload.createTime)}
        </span>
        {receiving && (
          <span class="dim">
            {bytes(Number(upload.receivedBytes))} are there; choose the same file again{upload.replace && <a href={`#/${upload.title}`}> where it replaces a film</a>} to go on.
          </span>
        )}
        {upload.error && <span class="bad-text">{sentenceOfStatus(upload.error)}</span>}
        <ErrorNote error={error} />
      </div>
      <Badge tone={tone}>{text}</Badge>
      {receiving && (
        <button type="button" class="button small" disabled={busy} aria-label={`Cancel the upload of ${upload.fileName}`} onClick={cancel}>
          Cancel
        </button>
      )}
      {upload.job && (
        <a class="button small" href={`#/jobs/${idOf(upload.job)}`} aria-label={`Job of ${upload.fileName}`}>
          Job
        </a>
      )}
    </li>
  );
}
