import { useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { useAct } from "../lib/load";
import { go } from "../lib/router";
import { idOf } from "../state";
import { announce, Dialog, ErrorNote } from "../ui/basics";
import { textOf, titleText, type TitleText } from "../lib/title_text";
import { TitleFields } from "../ui/title_fields";
import { PictureDialog } from "./picture";
import { ReplaceFilm } from "./replace_film";
import { RightsDialog } from "./rights";

/** What the owner of a title can do with it. */
export function TitleTools({ title, onChange }: { title: Title; onChange: () => void }) {
  const [open, setOpen] = useState<"edit" | "picture" | "rights" | "replace" | "delete" | undefined>(undefined);
  const { busy, error, run } = useAct();
  const close = () => setOpen(undefined);
  const done = () => (close(), onChange());
  const show = () => {
    const call = title.unpublished ? api.catalog.publishTitle : api.catalog.unpublishTitle;
    void run(() => call({ name: title.name })).then((done) => done && (announce(title.unpublished ? "Published" : "Not published"), onChange()));
  };
  return (
    <div class="tools">
      <button type="button" class={title.unpublished ? "button small primary" : "button small"} disabled={busy} onClick={show}>
        {title.unpublished ? "Publish" : "Unpublish"}
      </button>
      <button type="button" class="button small" onClick={() => setOpen("edit")}>
        Edit details
      </button>
      <button type="button" class="button small" onClick={() => setOpen("picture")}>
        Picture
      </button>
      <button type="button" class="button small" onClick={() => setOpen("rights")}>
        Where and when
      </button>
      {title.job && (
        <button type="button" class="button small" onClick={() => setOpen("replace")}>
          Replace the film
        </button>
      )}
      {title.job && (
        <a class="button small" href={`#/jobs/${idOf(title.job)}`}>
          How it was processed
        </a>
      )}
      <button type="button" class="button small danger" onClick={() => setOpen("delete")}>
        Delete
      </button>
      <ErrorNote error={error} />
      {open === "edit" && <EditTitle title={title} onClose={close} onDone={done} />}
      {open === "picture" && <PictureDialog name={title.name} has={title.artwork !== undefined} titles={[title]} onClose={close} onDone={done} />}
      {open === "rights" && <RightsDialog title={title} onClose={close} onDone={done} />}
      {open === "replace" && <ReplaceFilm title={title} onClose={done} />}
      {open === "delete" && <DeleteTitle title={title} onClose={close} />}
    </div>
  );
}

function EditTitle({ title, onClose, onDone }: { title: Title; onClose: () => void; onDone: () => void }) {
  const [text, setText] = useState<TitleText>(textOf(title));
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const done = await run(() =>
      api.catalog.updateTitle({
        title: { name: title.name, etag: title.etag, ...titleText(text) },
        updateMask: { paths: ["display_name", "description", "release_year", "genres"] },
      }),
    );
    if (!done) return;
    announce("Saved");
    onDone();
  };
  return (
    <Dialog title="Edit details" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <TitleFields value={text} onChange={setText} />
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Save
        </button>
      </form>
    </Dialog>
  );
}

function DeleteTitle({ title, onClose }: { title: Title; onClose: () => void }) {
  const { busy, error, run } = useAct();
  const remove = async () => {
    if (await run(() => api.catalog.deleteTitle({ name: title.name }))) go("/", { replace: true });
  };
  return (
    <Dialog title="Delete this film?" onClose={onClose}>
      <p>
        <strong dir="auto">{title.displayName}</strong> disappears at once for everybody. This can't be undone.
      </p>
      <ErrorNote error={error} />
      <button type="button" class="button danger" disabled={busy} onClick={() => void remove()}>
        Delete film
      </button>
    </Dialog>
  );
}
