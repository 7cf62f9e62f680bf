import { useState } from "preact/hooks";
import { Replacement_State, type Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { sentenceOfStatus } from "../api/errors";
import { useAct } from "../lib/load";
import { idOf } from "../state";
import { Badge, Dialog, ErrorNote, Loading } from "../ui/basics";
import { findBegun, Uploader } from "../upload/uploader";
import { DropZone, Sending } from "./upload";

const LOOK_MS = 15_000;

/** Uploads another film for a title; a file whose upload was begun before goes on where it stopped. */
export function ReplaceFilm({ title, onClose }: { title: Title; onClose: () => void }) {
  const [uploader, setUploader] = useState<Uploader | undefined>(undefined);
  const { busy, error, run } = useAct();
  const choose = (file: File) =>
    void run(async () => {
      await findBegun(file, AbortSignal.timeout(LOOK_MS), title.name);
      setUploader(new Uploader(file, { name: title.name, displayName: title.displayName }));
    });
  return (
    <Dialog title="Replace the film" onClose={onClose}>
      {uploader ? (
        <Sending uploader={uploader} onAgain={() => setUploader(undefined)} once />
      ) : (
        <>
          <p>
            What can be watched of <strong dir="auto">{title.displayName}</strong> now stays until the new film can be watched, and for good if that is no film or fails. Name, picture and rights stay.
          </p>
          <ErrorNote error={error} />
          {busy ? <Loading what="the upload" /> : <DropZone onFile={choose} />}
        </>
      )}
    </Dialog>
  );
}

/** How far a newer film of a title is; nothing where there is none. */
export function ReplacementNote({ title: { replacement } }: { title: Title }) {
  if (!replacement) return null;
  if (replacement.state === Replacement_State.FAILED) {
    const why = replacement.error ? sentenceOfStatus(replacement.error) : "Processing failed.";
    return <ErrorNote error={`The newer film was not taken, so this one stays. ${why}`} />;
  }
  return (
    <p>
      <Badge tone="busy">A newer film is being processed; this one plays until that can</Badge> <a href={`#/jobs/${idOf(replacement.job)}`}>How far it is</a>
    </p>
  );
}
